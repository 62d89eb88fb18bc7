"""The minimal work of a decoding step, against a count by hand."""

from __future__ import annotations

import onnx_ir as ir

from benchmarks.speed.roofline import CACHE, LOGITS, ROW, SHARED, WEIGHTS, work_of
from tests.support.runtime_models import HEAD, HIDDEN, LAYERS, RANK, contract, exported


def test_the_work_of_a_step() -> None:
    """Counted by hand for the tiny model: two layers, H = 64, F = 96, q, k, v, o, and a tied head of 300 tokens."""
    model = exported(precision="fp32")
    graph = ir.load(model / "model.onnx")
    plain = work_of(graph, contract(model), HEAD, context=10, rows=2)
    matrices = LAYERS * (HIDDEN * (64 + 32 + 32 + 64) + 3 * HIDDEN * 96) + HIDDEN * 300
    norms = (2 * LAYERS + 1) * HIDDEN
    keys = LAYERS * 2 * (2 * 10 * 2 * HEAD)
    assert plain.bytes == {WEIGHTS: 4 * (matrices + norms), CACHE: 4 * keys, LOGITS: 4 * 2 * 300}
    assert plain.byte_operations == 0
    assert plain.float_operations == 2 * 2 * matrices + LAYERS * 4 * 2 * 4 * 10 * HEAD
    both = work_of(graph, contract(model), HEAD, context=10, rows=2, skills=[3, 3])
    shared = LAYERS * RANK * (2 * (64 + 64) + 64 + 96)  # A and B of q, o and up
    assert both.bytes[SHARED] - plain.bytes.get(SHARED, 0) == 4 * shared
    row = LAYERS * (2 * 3 * 64 + 96)  # three kinds as wide as the output of q and o, the gain of up
    assert both.bytes[ROW] == 2 * 3 * 4 * row  # two skills of three experts
    one = work_of(graph, contract(model), HEAD, context=10, rows=1, skills=[1])
    assert one.bytes[SHARED] == 4 * LAYERS * RANK * 2 * (
        64 + 64
    )  # one expert is not routed, so up's, which has gain alone, is not needed
    assert both.bytes[WEIGHTS] == plain.bytes[WEIGHTS]
