"""Buffers of keys and values: returned to the pool after a request, and never read before they are written."""

from __future__ import annotations

import gc
from typing import Any

import numpy as np
import pytest

from lime_edge.errors import ConfigError
from lime_edge.runtime import Runtime
from lime_edge.runtime.model.kv_buffers import State
from tests.support.runtime_models import PROMPTS, exported, runtime


def answers(made: Runtime, **settings: Any) -> list[Any]:
    found = made.generate(PROMPTS, ["legal", None, "brief", "legal"], max_new_tokens=20, **settings)
    return [answer.token_ids for answer in found]


@pytest.mark.parametrize(("precision", "window"), [("fp32", 1), ("fp32", 3), ("int4", 1)])
def test_what_a_request_left_behind_changes_no_bit(precision: str, window: int) -> None:
    """The next request gets memory full of NaN, which would show in every result that read it."""
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
    (piece,) = made._graph.pool._idle.values()
    stream = made.stream("Hello", "legal", max_new_tokens=5)
    next(stream)
    assert made._graph.pool.idle == 0
    stream.close()
    gc.collect()
    assert id(piece) in made._graph.pool._idle
    with pytest.raises(ConfigError):
        made.generate("Hello", max_new_tokens=10_000)
    assert id(piece) in made._graph.pool._idle


def test_no_memory_is_an_error_that_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(size: int) -> np.ndarray[Any, Any]:
        raise MemoryError

    made = runtime(exported(), "legal")
    monkeypatch.setattr(made._graph.pool, "take", none)
    with pytest.raises(ConfigError, match="no memory for 1 x 64 positions: use fewer rows or tokens"):
        made.generate("Hello", max_new_tokens=2)


def test_copying_a_row_copies_its_first_positions() -> None:
    state = State(runtime(exported())._graph, 2, 64)
    state._host[:] = 0
    state._host[:, 0] = 1
    state.copy(0, 1, 5)
    assert state._host[:, 1, :, :5].all()
    assert not state._host[:, 1, :, 5:].any()
