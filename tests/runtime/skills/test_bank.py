"""The bank's rows and their memory: only rows in use take memory, with limited address space and without."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading

import numpy as np
import pytest

from lime_edge.runtime.memory import reserve
from lime_edge.runtime.skills.bank import Bank, Hold
from tests.support.memory_accounts import private

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="only Linux frees memory page by page")
WIDE = 2**15  # numbers in a row of 64 KiB


@pytest.fixture(params=["reserved", "rationed"])
def anywhere(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the address space of this system, and as if it were limited."""
    if request.param == "rationed":
        monkeypatch.setattr(reserve, "_rationed", lambda: True)


def filled(bank: Bank, count: int) -> dict[int, Hold]:
    """Rows full of 1, 2, ..., each with a hold of its own."""
    size, holds = bank.array.shape[1], [bank.hold() for _ in range(count)]
    return {hold.add(np.full(size, number + 1, np.float32)): hold for number, hold in enumerate(holds)}


def release(holds: dict[int, Hold], rows: list[int]) -> None:
    for row in rows:
        holds[row].release()


@pytest.mark.usefixtures("anywhere")
def test_a_thousand_rows_and_whoever_began_before_them() -> None:
    bank = Bank(100, np.float16)
    first = filled(bank, 3)
    pinned = bank.hold().keep(first)
    holds = filled(bank, 1000)
    rows = list(holds)
    assert rows == list(range(4, 1004))
    assert bank.array.shape == (1004, 100)
    assert bank.array.flags.c_contiguous
    assert not bank.array[0].any()
    assert (bank.array[rows] == np.arange(1, 1001)[:, None]).all()
    assert (pinned[list(first)] == np.arange(1, 4)[:, None]).all()
    assert pinned.shape == (4, 100)


@pytest.mark.usefixtures("anywhere")
def test_free_rows_are_written_again_from_the_lowest_on() -> None:
    bank = Bank(100, np.float32)
    holds = filled(bank, 50)
    rows, kept = list(holds), bank.hold()
    held = kept.keep([rows[7]])
    release(holds, rows)
    assert bank.in_use == 2
    some = filled(bank, 3)
    others = filled(bank, 46)
    assert list(some) == rows[:3]
    assert list(others) == [*rows[3:7], *rows[8:]]
    assert (held[rows[7]] == 8).all()
    kept.release()
    assert list(filled(bank, 2)) == [rows[7], 51]


@pytest.mark.usefixtures("anywhere")
def test_the_array_is_another_object_after_every_change_only() -> None:
    """Copies on a device are cached by the identity of the array."""
    bank = Bank(8, np.float32)
    seen = [bank.array]
    for _ in range(20):
        holds = filled(bank, 1)
        assert all(bank.array is not before for before in seen)
        seen.append(bank.array)
        other = bank.hold()
        assert other.keep(holds) is seen[-1]
        release({**holds, 0: other}, [0, *holds])
        assert bank.array is seen[-1]


@LINUX
def test_memory_is_that_of_the_rows_in_use() -> None:
    bank = Bank(WIDE, np.float16)
    some = filled(bank, 20)
    where, before = bank.array.ctypes.data, private()
    holds = filled(bank, 1000)
    rows = list(holds)
    taken = private() - before
    assert 0.9 <= taken / (1000 * 2 * WIDE) <= 1.1
    assert bank.array.ctypes.data == where
    release(holds, rows[10:])
    assert private() - before <= 0.05 * taken
    assert bank.in_use == len(some) + 11
    assert not bank.array[rows[10] :].any()  # reading zeros takes no memory
    assert (bank.array[rows[:10]] == np.arange(1, 11)[:, None]).all()
    assert private() - before <= 0.05 * taken


@LINUX
def test_neighbours_on_the_same_page_keep_their_numbers() -> None:
    """Rows that are not aligned with pages."""
    bank = Bank(4096 + 64, np.float16)
    holds = filled(bank, 40)
    rows = list(holds)
    release(holds, rows[1::2])
    for number, row in enumerate(rows):
        assert number % 2 or (bank.array[row] == number + 1).all()


@LINUX
def test_a_bank_goes_with_its_owner() -> None:
    def churn() -> None:
        bank = Bank(WIDE, np.float16)
        filled(bank, 100)

    churn()
    before = private()
    for _ in range(20):
        churn()
    assert private() - before < 100 * 2 * WIDE


@LINUX
def test_under_a_limit_of_address_space() -> None:
    code = """
import resource, numpy as np
from lime_edge.runtime.skills.bank import Bank, Hold
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 2**27,) * 2)
bank = Bank(1024, np.float16)
hold = bank.hold()
rows = [hold.add(np.full(1024, n, np.float16)) for n in range(1000)]
assert (bank.array[rows] == np.arange(1000)[:, None]).all()
print(len(np.ones(2**23)))  # 64 MiB remain for others
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, f"{2**23}\n"), done.stderr


def test_bank_rows_are_reused_only_when_free() -> None:
    bank = Bank(3, np.float32)
    skills, request, others = [bank.hold() for _ in range(2)], bank.hold(), bank.hold()
    first, second = (hold.add(np.full(3, number)) for hold, number in zip(skills, (1.0, 2.0), strict=True))
    pinned = request.keep([first])
    skills[0].release()  # the skill is unloaded while a request still runs
    rows = [others.add(np.full(3, 10.0 + number)) for number in range(9)]
    assert first not in rows
    assert second not in rows
    assert pinned[first].tolist() == [1, 1, 1]
    assert bank.array[second].tolist() == [2, 2, 2]
    assert bank.array[0].tolist() == [0, 0, 0]
    request.release()
    assert others.add(np.full(3, 5.0)) == first


def test_releasing_twice_frees_no_row_of_others() -> None:
    bank = Bank(3, np.float32)
    mine, theirs = bank.hold(), bank.hold()
    row = mine.add(np.full(3, 1.0))
    theirs.keep([row])
    mine.release()
    mine.release()
    assert bank.in_use == 2
    theirs.release()
    assert bank.in_use == 1


def test_a_row_is_kept_only_while_it_holds_the_same_content() -> None:
    bank = Bank(3, np.float32)
    first, later = bank.hold(), bank.hold()
    row = first.add(np.full(3, 1.0))
    stamp = bank.stamp(row)
    assert later.keep_written(row, stamp)
    first.release()
    later.release()
    assert bank.in_use == 1
    assert not bank.hold().keep_written(row, stamp)
    second = bank.hold()
    assert second.add(np.full(3, 2.0)) == row
    assert not bank.hold().keep_written(row, stamp)
    assert second.keep_written(row, bank.stamp(row))


def test_a_hold_that_nobody_refers_to_is_released() -> None:
    bank = Bank(3, np.float32)
    bank.hold().add(np.full(3, 1.0))
    assert bank.in_use == 1
    circle = [bank.hold()]
    circle[0].add(np.full(3, 1.0))
    circle.append(circle)  # type: ignore[arg-type]
    assert bank.in_use == 2
    del circle
    gc.collect()
    assert bank.in_use == 1


def test_a_release_inside_the_lock_neither_waits_nor_is_lost() -> None:
    """As of a destructor that the garbage collector runs, or of a signal's handler."""
    bank = Bank(3, np.float32)
    hold = bank.hold()
    hold.add(np.full(3, 1.0))
    with bank._lock:
        worker = threading.Thread(target=hold.release, daemon=True)
        worker.start()
        worker.join(60)
        assert not worker.is_alive()
    assert bank.in_use == 1
