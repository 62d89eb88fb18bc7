"""One thread drives at a time, hands over when it has what it waits for, and the main thread leaves it to others."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from lime_edge.runtime.scheduling.turns import Turns
from lime_edge.runtime.scheduling.waiter import Waiter


class Count:
    """Work for several threads: each waits until enough is done. Fails if two work at once."""

    def __init__(self, turns: Turns) -> None:
        self.turns, self.done, self.by = turns, 0, list[int]()
        self.waiters: list[Waiter] = []
        self._busy = threading.Lock()

    def work(self) -> bool:
        assert self._busy.acquire(blocking=False)
        assert self.turns.mine
        self.done += 1
        self.by.append(threading.get_ident())
        self._busy.release()
        for waiter in self.waiters:
            waiter.wake()
        return True

    def until(self, number: int) -> None:
        waiter = Waiter()
        self.waiters.append(waiter)
        self.turns.drive(waiter, lambda: self.done >= number, self.work)


@pytest.fixture
def turns() -> Turns:
    return Turns()


def test_a_single_caller_drives_itself(turns: Turns) -> None:
    count = Count(turns)
    count.until(5)
    assert count.done == 5
    assert not turns.mine
    assert turns._waiters == []


def test_threads_share_the_work(turns: Turns) -> None:
    count = Count(turns)
    with ThreadPoolExecutor(8) as pool:
        for done in [pool.submit(count.until, 40 * number) for number in range(1, 9)]:
            done.result(timeout=60)
    assert count.done == 320
    assert turns._waiters == []


def test_the_main_thread_leaves_it_to_others(turns: Turns) -> None:
    count, stop = Count(turns), threading.Event()
    server = threading.Thread(target=lambda: turns.drive(Waiter(), stop.is_set, count.work))
    server.start()
    while not count.done:
        pass
    start = len(count.by)
    count.until(count.done + 1000)
    stop.set()
    turns.wake_all()
    server.join(60)
    assert threading.get_ident() not in count.by[start:]
    count.until(count.done + 1)  # nobody else is there
    assert count.by[-1] == threading.get_ident()


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_exception_gives_the_turn_back(turns: Turns, error: type[BaseException]) -> None:
    def fail() -> bool:
        raise error

    with pytest.raises(error):
        turns.drive(Waiter(), lambda: False, fail)
    assert turns._waiters == []
    Count(turns).until(1)


def test_a_turn_ends_with_its_frame(turns: Turns) -> None:
    """Even if it was never given back, as after an interrupt in the line that does."""

    def lost() -> None:
        turns._give = lambda *_: None  # type: ignore[method-assign]
        turns.drive(Waiter(), lambda: False, lambda: 1 / 0 > 0)

    with suppress(ZeroDivisionError):
        lost()
    del turns._give
    Count(turns).until(1)


def test_attempts_wait_for_nobody(turns: Turns) -> None:
    count, seen = Count(turns), list[bool]()
    turns.attempt(count.work)
    assert count.done == 1

    def inside() -> bool:
        with ThreadPoolExecutor(1) as pool:
            pool.submit(turns.attempt, lambda: seen.append(True)).result(timeout=60)
        turns.attempt(lambda: seen.append(True))
        count.done += 1
        return True

    turns.drive(Waiter(), lambda: count.done >= 2, inside)
    assert seen == []
    with turns._lock:
        turns.attempt(lambda: seen.append(True))
    assert seen == []
