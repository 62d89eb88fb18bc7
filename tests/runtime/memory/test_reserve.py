"""Reserved rows: how many there are, and that freeing one leaves its neighbours alone."""

from __future__ import annotations

import mmap
import sys

import numpy as np
import pytest

from lime_edge.runtime.memory import reserve
from lime_edge.runtime.memory.reserve import Reserve, address_space

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="only Linux frees memory page by page")


def test_limited_address_space_gives_the_least_number_of_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reserve, "_rationed", lambda: True)
    rows = Reserve(100, np.float16, 4)
    assert rows.array.shape == (4, 100)
    rows.array[:] = 1
    rows.give_back(1)
    assert rows.array.all()


def test_refused_address_space_gives_the_least_number_of_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reserve, "address_space", lambda size, promised: None)
    assert Reserve(100, np.float16, 4).array.shape == (4, 100)


@pytest.mark.parametrize("least", [4, 2**17])
def test_the_least_number_of_rows_is_kept(least: int) -> None:
    rows = Reserve(8, np.float32, least)
    assert len(rows.array) >= least
    assert not rows.array[-1].any()


@LINUX
def test_only_pages_that_lie_completely_in_a_row_are_freed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reserve, "_rationed", lambda: False)
    size = 3 * mmap.PAGESIZE // 2  # bytes of a row
    rows = Reserve(size, np.uint8, 4)
    rows.array[:4] = 1
    rows.give_back(1)
    assert rows.array[[0, 2, 3]].all()
    assert int(rows.array[1].sum()) == size - mmap.PAGESIZE


def test_more_than_the_system_has_is_none() -> None:
    assert address_space(2**62) is None
    space = address_space(100)
    assert space is None or not any(space[:100])
