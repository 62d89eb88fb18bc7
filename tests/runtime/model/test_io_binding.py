"""Bound arrays are reused between runs, and a failing run is a ModelError."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from lime_edge.errors import ModelError
from lime_edge.runtime.model.io_binding import Binding
from lime_edge.runtime.model.kv_buffers import State
from tests.support.runtime_models import exported, runtime


def test_a_token_takes_no_memory() -> None:
    """Only tokens and text grow with the answer in Python and numpy."""
    made = runtime(exported(), "legal")
    made._text.eos_ids = frozenset()
    stream = made.stream("Hello", "legal", max_new_tokens=200, speculate=False)
    next(stream)
    engine = made.scheduler._engine  # a round is a token, also one without text
    for _ in range(20):
        stream._job.asked()
        engine.advance([stream._job])
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        peaks = []
        for _ in range(100):
            tracemalloc.reset_peak()
            start = tracemalloc.get_traced_memory()[0]
            stream._job.asked()
            assert engine.advance([stream._job])
            peaks.append(tracemalloc.get_traced_memory()[1] - start)
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert grown < 100 * 400  # bytes: two numbers and a piece of text
    assert max(peaks) < 20_000


@pytest.fixture
def binding() -> Binding:
    graph = runtime(exported())._graph
    bank = graph.place(np.zeros((1, graph.directory.contract.table.row_size), graph.bank_dtype))
    return Binding(graph, bank, State(graph, 2, 64), 0, 1)


def test_arrays_are_reused_while_the_shape_is_the_same(binding: Binding) -> None:
    array = binding.input("input_ids", (1, 3), np.int64)
    binding.feed("input_ids", np.array([[1, 2, 3]]))
    assert array.tolist() == [[1, 2, 3]]
    assert binding.input("input_ids", (1, 4), np.int64) is not array
    output = binding.output("logits", (1, 3, 300), np.float32)
    assert binding.output("logits", (1, 3, 300), np.float32) is output
    assert binding.output("logits", (1, 4, 300), np.float32) is not output


def test_a_run_that_fails_is_a_model_error(binding: Binding) -> None:
    binding.feed("input_ids", np.array([[1, 2, 3]]))
    with pytest.raises(ModelError, match="ONNX Runtime could not run the graph"):
        binding.run()  # the other inputs are missing
