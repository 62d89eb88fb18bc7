"""Runs are counted wherever the runtime runs its graph, and the count ends with the block."""

from __future__ import annotations

from typing import Any

from benchmarks.requests.sides import counted_runs
from lime_edge.runtime.model import io_binding
from tests.support.runtime_models import exported, runtime


def test_runs_are_counted() -> None:
    module: Any = io_binding  # which imports the function
    made, before = runtime(exported()), module.run_bound
    with counted_runs() as runs:
        found = made.generate("Hello", None, max_new_tokens=5, speculate=False)
    assert len(runs) == len(found.token_ids)  # one for the prompt, one for each token but the last
    made.generate("Hello", None, max_new_tokens=5)
    assert len(runs) == len(found.token_ids)
    assert module.run_bound is before
