"""LiME in plain numpy: the definition that every other implementation is held to.

Written to be read, float64 unless told otherwise, one token at a time where that is clearest.
Follows arXiv 2604.02338 with the causal, per-token rule: the output for token t of row b depends on
tokens <= t of row b and on nothing else.

Shapes: B rows, S tokens, D inputs, H outputs, r rank, E experts.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from lime_edge.contract import NEUTRAL, Kind, Routing

Array = npt.NDArray[Any]


def softmax(x: Array) -> Array:
    e = np.exp(x - x.max())
    result: Array = e / e.sum()
    return result


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def scaled(v: Array) -> Array:
    """The E leading components over their own max-abs, clamped below at 1e-6."""
    result: Array = v / max(np.abs(v).max(), 1e-6)
    return result


def evidence(y: Array, d: Array, routing: Routing) -> Array:
    """Routing logits of one token, [E], from its frozen [H] and adapted [H] representation."""
    e, g = routing.experts, routing.gamma
    return (1 - g) * scaled(y[:e]) + g * scaled(d[:e])


def select(logits: Array, routing: Routing) -> Array:
    """Expert weights [E] of one token from its (window-averaged) logits. Ties are all kept."""
    prob = softmax(logits / routing.temperature)
    kth = np.sort(prob)[-routing.keep]
    top = routing.theta * prob.max()
    match routing.mode:
        case "hard":
            kept = prob * (prob >= kth)
        case "auto":
            kept = prob * (prob >= max(kth, top))
        case "soft":
            kept = prob * sigmoid((prob - kth) / routing.softness)
        case "auto_soft":
            kept = prob * sigmoid((prob - top) / routing.softness)
    weights: Array = kept / kept.sum()
    return weights


def window_mean(logits: Array, past: Array, n: int) -> Array:
    """Causal n-gram: mean over the last n logits. `logits` [S, E], `past` [at most n - 1, E] -> [S, E]."""
    both = np.concatenate([past, logits])
    ends = range(len(past) + 1, len(both) + 1)
    return np.stack([both[max(0, end - n) : end].mean(0) for end in ends]) if len(logits) else logits


def lime_linear(
    x: Array,
    weight: Array,
    bias: Array | None,
    a: Array,
    b: Array,
    scale: float,
    vectors: dict[str, Array],
    routing: Routing,
    past: Array | None = None,
    active: npt.NDArray[np.bool_] | None = None,
) -> tuple[Array, Array]:
    """One adapted projection of one row.

    Args:
        x: Input [S, D].
        weight, bias: Frozen [H, D] and [H] or None.
        a, b, scale: Shared adapter [r, D], [H, r] and s = alpha / r.
        vectors: ``expert`` p, ``gain`` u, ``shift`` b, each [E, H], and ``rank`` q [E, r]; any may be absent.
        past: Routing logits of the tokens before, [at most n - 1, E].
        active: Which tokens the skill applies to, [S]; None means all.

    Returns:
        Output [S, H] and this call's routing logits [S, E] before the window mean.
    """
    e = routing.experts
    y = x @ weight.T + (0 if bias is None else bias)  # [S, H]
    low = x @ a.T  # [S, r]
    ungated = scale * low @ b.T  # [S, H]; the evidence comes from before the rank gate
    logits = np.stack([evidence(yt, dt, routing) for yt, dt in zip(y, ungated, strict=True)])  # [S, E]
    before = np.zeros((0, e), x.dtype) if past is None else past
    mean = window_mean(logits, before, routing.window)
    w = np.stack([select(row, routing) for row in mean])  # [S, E]

    def mixed(kind: Kind, width: int) -> Array:
        return w @ vectors.get(kind, np.full([e, width], NEUTRAL[kind], x.dtype))

    h, r = weight.shape[0], a.shape[0]
    d = scale * (low * mixed("rank", r)) @ b.T
    change = d * mixed("expert", h) + y * mixed("gain", h) + mixed("shift", h)
    on = np.ones(len(x), bool) if active is None else active
    return y + change * on[:, None], logits


def balance_losses(probs: Array, real: npt.NDArray[np.bool_]) -> tuple[float, float]:
    """Importance and KL to uniform from prob [B, S, E] over the tokens that are not padding [B, S]."""
    mean = probs[real].mean(0)
    count = len(mean)
    return float(count * (mean**2).sum() - 1), float((mean * np.log(mean * count)).sum())
