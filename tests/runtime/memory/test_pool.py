"""The pool reuses pieces that are large enough and limits the idle ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from lime_edge.runtime.memory import pool
from lime_edge.runtime.memory.pool import Bytes, Pool


def test_a_piece_is_used_again_if_it_is_large_enough() -> None:
    made = Pool()
    small, large = made.take(100), made.take(1000)
    made.give(large)
    made.give(small)
    assert made.take(50) is small
    assert made.take(101) is large
    made.give(small)
    new = made.take(101)
    assert new is not small
    assert len(new) >= 101
    assert not new.any()


def test_not_all_pieces_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "_IDLE", 1000)
    made = Pool()
    pieces = [made.take(400) for _ in range(4)]
    for piece in pieces:
        made.give(piece)
    assert all(made.take(400) is piece for piece in pieces[2:])
    assert made.idle == 0
    made.give(made.take(1001))
    assert made.idle == 0


def test_a_piece_that_another_thread_takes_first_is_not_taken_twice() -> None:
    """The rival stands for a garbage collector, too, that gives pieces back while one is taken."""

    class Rival(dict[int, Bytes]):
        def values(self) -> Any:
            found = list(super().values())
            self.clear()
            self[id(late)] = late
            return found

    made, late = Pool(), np.zeros(10, np.uint8)
    piece = made.take(10)
    made.give(piece)
    made._idle = Rival(made._idle)
    assert made.take(10) is not piece
    assert list(made._idle) == [id(late)]
