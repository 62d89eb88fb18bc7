"""Zero-parameter routing in standard ONNX operators: evidence, causal window, selection.

Implements LiME (arXiv 2604.02338), sections on routing, Auto Top-K and n-grams, with the scale per token and a window
over past tokens only. Shapes: B rows, S tokens, n parts, E experts.
"""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from lime_edge.contract.routing import Routing

from .function_body import Body

SMALLEST_SCALE = 1e-6
#: The smallest normal number of fp16: smaller numbers may be flushed to 0, and 0 / 0 would be NaN.
SMALLEST_SCALE_FP16 = 2.0**-14


def evidence(body: Body, routing: Routing, parts: int, y: ir.Value, d: ir.Value) -> ir.Value:
    """Routing logits, [B, S, n, E]; divided by the temperature, except with a window, whose mean comes first.

    Args:
        body: The function body to write to.
        routing: Routing constants.
        parts: n.
        y, d: The first E components of every part, frozen and adapted, each [B, S, n * E].
    """
    both = body("Concat", y, d, axis=2)
    both = body("Reshape", both, body.whole([0, 0, 2 * parts, routing.experts]))
    largest = body("ReduceMax", body("Abs", both), body.whole([3]), keepdims=1)
    scaled = body("Div", both, body("Max", largest, body.real(smallest_scale(body.dtype))))  # [B, S, 2n, E]
    # One matrix product computes the weighted sum of y and d for every part.
    temperature = 1.0 if routing.window > 1 else routing.temperature
    share = np.concatenate([(1 - routing.gamma) * np.eye(parts), routing.gamma * np.eye(parts)], axis=1)
    return body("MatMul", body.real(share / temperature), scaled)


def smallest_scale(dtype: ir.DataType) -> float:
    """The lower bound of the max-abs scale in a graph with activations of this type."""
    return SMALLEST_SCALE_FP16 if dtype == ir.DataType.FLOAT16 else SMALLEST_SCALE


def window_mean(body: Body, window: int, width: int, flat: ir.Value) -> ir.Value:
    """Mean of the logits of the last `window` tokens that exist, [B, S, width].

    Args:
        body: The function body to write to; reads the input ``past_evidence`` and the attribute ``evidence_offset``.
        window: n of the n-gram, at least 2.
        width: Columns of evidence of this node.
        flat: Logits of this call, [B, S, width].
    """
    past = body.inputs["past_evidence"]  # [B or 1, n - 1, C + 1]
    own = body("Add", body.whole(list(range(width))), body.attribute("evidence_offset"))
    kept = body("Gather", past, body("Concat", own, body.whole([-1]), axis=0), axis=2)  # own columns and "exists"
    rows = body("Concat", body("Shape", flat, start=0, end=1), body.whole([1, 1]), axis=0)
    marked = body("Pad", flat, body.whole([0, 0, 0, 0, 0, 1]), body.real(1.0))  # this call's tokens exist
    line = body("Concat", body("Expand", kept, rows), marked, axis=1)  # [B, n - 1 + S, width + 1]
    one = body.whole([1])
    shifted = []
    for start in range(window):
        end = start - window + 1 or np.iinfo(np.int64).max
        shifted.append(body("Slice", line, body.whole([start]), body.whole([end]), one))
    total, count = body.many(2, "Split", body("Sum", *shifted), body.whole([width, 1]), axis=2)
    return body("Div", total, count)


def select(body: Body, routing: Routing, logits: ir.Value) -> ir.Value:
    """Expert weights from logits, [B, S, n, E]. The weights of a row sum to 1; all tied experts are kept."""
    if routing.window > 1:
        logits = body("Mul", logits, body.real(1 / routing.temperature))
    if routing.mode in ("hard", "auto"):
        return _select_hard(body, routing, logits)
    return _select_soft(body, routing, logits)


def _select_hard(body: Body, routing: Routing, logits: ir.Value) -> ir.Value:
    """Softmax over the kept experts only, which renormalises; prob >= theta * max becomes a difference of logits."""
    limits = []
    if routing.keep < routing.experts:
        limits.append(_kth_largest(body, routing, logits))
    if routing.mode == "auto":
        with np.errstate(divide="ignore"):
            gap = float(np.log(routing.theta))
        largest = body("ReduceMax", logits, body.whole([3]), keepdims=1)
        limits.append(body("Add", largest, body.real(gap)))
    if limits:
        limit = body("Max", *limits) if len(limits) > 1 else limits[0]
        logits = body("Where", body("GreaterOrEqual", logits, limit), logits, body.real(-math.inf))
    return body("Softmax", logits, axis=-1)


def _select_soft(body: Body, routing: Routing, logits: ir.Value) -> ir.Value:
    """prob * sigmoid((prob - limit) / t), renormalised."""
    prob = body("Softmax", logits, axis=-1)
    if routing.mode == "soft":
        limit = _kth_largest(body, routing, prob)
    else:
        largest = body("ReduceMax", prob, body.whole([3]), keepdims=1)
        limit = body("Mul", largest, body.real(routing.theta))
    above = body("Mul", body("Sub", prob, limit), body.real(1 / routing.softness))
    kept = body("Mul", prob, body("Sigmoid", above))
    return body("Div", kept, body("ReduceSum", kept, body.whole([3]), keepdims=1))


def _kth_largest(body: Body, routing: Routing, values: ir.Value) -> ir.Value:
    """The k-th largest value over the experts, [.., E] -> [.., 1]."""
    axis = body.whole([3])
    if routing.keep == 1:
        return body("ReduceMax", values, axis, keepdims=1)
    if routing.keep == routing.experts:
        return body("ReduceMin", values, axis, keepdims=1)
    top, _ = body.many(2, "TopK", values, body.whole([routing.keep]), axis=-1)
    return body("Gather", top, body.whole([-1]), axis=3)
