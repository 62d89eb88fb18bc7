"""The pool reuses pieces that are large enough and limits the idle ones."""

from __future__ import annotations

import pytest

from lime_edge.runtime.memory import pool
from lime_edge.runtime.memory.pool import Pool


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
    assert made._idle == []
    made.give(made.take(1001))
    assert made._idle == []
