"""Memory of requests: taken once, used again, never seen by the next one; nothing is taken for every token."""

from __future__ import annotations

import gc
import tracemalloc
from typing import Any

import numpy as np
import pytest

from lime_edge.errors import ConfigError
from lime_edge.runtime import Runtime
from lime_edge.runtime.memory import pool
from lime_edge.runtime.memory.pool import Pool
from tests.support.runtime_models import PROMPTS, exported, runtime


def answers(made: Runtime, **settings: Any) -> list[Any]:
    found = made.generate(PROMPTS, ["legal", None, "brief", "legal"], max_new_tokens=20, **settings)
    return [answer.token_ids for answer in found]


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


@pytest.mark.parametrize(("precision", "window"), [("fp32", 1), ("fp32", 3), ("int4", 1)])
def test_what_a_request_left_behind_changes_no_bit(precision: str, window: int) -> None:
    """Keys and values of the next one lie in memory full of numbers that would spoil everything they touched."""
    made = runtime(exported(window, precision), "legal", "brief")
    scores = [choice.scores for choice in made.choose(PROMPTS, ["yes", "no way"], "legal")]
    wanted = answers(made), answers(made, temperature=1.3, seed=5), scores
    taken = made._graph.pool.take

    def spoilt(size: int) -> Any:
        piece = taken(size).copy()
        piece[:] = 0xFF  # NaN in every float type
        return piece

    made._graph.pool.take = spoilt  # type: ignore[method-assign]
    again = [choice.scores for choice in made.choose(PROMPTS, ["yes", "no way"], "legal")]
    assert (answers(made), answers(made, temperature=1.3, seed=5), again) == wanted


def test_the_piece_comes_back_when_the_request_is_over() -> None:
    made = runtime(exported(), "legal")
    made.generate("Hello", max_new_tokens=2)
    (piece,) = made._graph.pool._idle
    stream = made.stream("Hello", "legal", max_new_tokens=5)
    next(stream)
    assert made._graph.pool._idle == []
    stream.close()
    gc.collect()
    assert made._graph.pool._idle[0] is piece
    with pytest.raises(ConfigError):
        made.generate("Hello", max_new_tokens=10_000)
    assert made._graph.pool._idle[0] is piece


def test_a_token_takes_no_memory() -> None:
    """Python and numpy allocate nothing that grows with the answer but its tokens and its text."""
    made = runtime(exported(), "legal")
    made._text.eos_ids = frozenset()
    stream = made.stream("Hello", "legal", max_new_tokens=200)
    steps = stream._steps  # every token, also one without text
    for _ in range(20):
        next(steps)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        peaks = []
        for _ in range(100):
            tracemalloc.reset_peak()
            start = tracemalloc.get_traced_memory()[0]
            next(steps)
            peaks.append(tracemalloc.get_traced_memory()[1] - start)
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert grown < 100 * 400  # bytes: two numbers and a piece of text
    assert max(peaks) < 20_000


def test_no_memory_is_an_error_that_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(size: int) -> np.ndarray[Any, Any]:
        raise MemoryError

    made = runtime(exported(), "legal")
    monkeypatch.setattr(made._graph.pool, "take", none)
    with pytest.raises(ConfigError, match="no memory for 1 x 64 positions: use fewer rows or tokens"):
        made.generate("Hello", max_new_tokens=2)
