"""LiME in plain numpy: the definition with which tests compare every other implementation.

Written for reading: it handles one token at a time where that is clearest, in the dtype of its inputs (mostly float64).
Follows arXiv 2604.02338 with the causal per-token rule: the output for token t of row b depends only on tokens <= t of
row b.

Shapes: B rows, S tokens, D inputs, H outputs, r rank, E experts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from lime_edge.contract.routing import Routing
from lime_edge.contract.vector_kinds import NEUTRAL, Kind

Array = npt.NDArray[Any]
Vectors = dict[str, Array]
Active = npt.NDArray[np.bool_] | None


def softmax(x: Array) -> Array:
    e = np.exp(x - x.max())
    result: Array = e / e.sum()
    return result


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def scaled(v: Array) -> Array:
    """The E leading components divided by their largest absolute value, which is at least 1e-6."""
    result: Array = v / max(np.abs(v).max(), 1e-6)
    return result


def evidence(y: Array, d: Array, routing: Routing) -> Array:
    """Routing logits [E] of one token from its frozen and adapted representations, [H] each."""
    e, g = routing.experts, routing.gamma
    return (1 - g) * scaled(y[:e]) + g * scaled(d[:e])


def select(logits: Array, routing: Routing) -> Array:
    """Expert weights [E] of one token from its (window-averaged) logits. All tied experts are kept."""
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
    """Causal n-gram: the mean of the last n logits. `logits` [S, E], `past` [at most n - 1, E] -> [S, E]."""
    both = np.concatenate([past, logits])
    ends = range(len(past) + 1, len(both) + 1)
    return np.stack([both[max(0, end - n) : end].mean(0) for end in ends]) if len(logits) else logits


Mixed = Callable[[Kind, int], Array]  # kind and width -> the mixed vector of every token, [S, width]


def mixer(y: Array, d: Array, vectors: Vectors, routing: Routing, past: Array | None = None) -> tuple[Mixed, Array]:
    """Route every token by its own y and d.

    Args:
        y, d: The evidence, [S, at least E] each.
        vectors: ``expert`` p, ``gain`` u, ``shift`` b, each [E, H], and ``rank`` q [E, r]; any may be absent.
        routing: The routing constants.
        past: Routing logits of the preceding tokens, [at most n - 1, E].

    Returns:
        A function that mixes the vectors of a kind, and the routing logits [S, E] before the window mean.
    """
    e = routing.experts
    logits = np.stack([evidence(yt, dt, routing) for yt, dt in zip(y, d, strict=True)])  # [S, E]
    before = np.zeros((0, e), y.dtype) if past is None else past
    w = np.stack([select(row, routing) for row in window_mean(logits, before, routing.window)])  # [S, E]
    return lambda kind, width: w @ vectors.get(kind, np.full([e, width], NEUTRAL[kind], y.dtype)), logits


def where_active(y: Array, out: Array, active: Active) -> Array:
    """The skill's output on tokens where the skill is active, [S]; the backbone's output elsewhere."""
    return out if active is None else np.where(active[:, None], out, y)


def lime_linear(
    x: Array,
    weight: Array,
    bias: Array | None,
    a: Array,
    b: Array,
    scale: float,
    vectors: Vectors,
    routing: Routing,
    past: Array | None = None,
    active: Active = None,
    m: Array | None = None,
) -> tuple[Array, Array]:
    """One row of a module adapted by LiME-LoRA (or LoRA-FA, which only trains less of it), or with m by LiME-DoRA.

    Args:
        x: Input [S, D].
        weight, bias: Frozen [H, D] and [H] or None.
        a, b, scale: Shared adapter [r, D], [H, r] and s = alpha / r.
        vectors, routing, past: As in `mixer`.
        active: Which tokens the skill applies to, [S]; None means all.
        m: Row norms [H] to which W plus adapter is rescaled; the y that routing and gain read is not rescaled.

    Returns:
        Output [S, H] and this call's routing logits [S, E] before the window mean.
    """
    h, r = weight.shape[0], a.shape[0]
    g = 1 if m is None else m / np.sqrt(((weight + scale * b @ a) ** 2).sum(1))  # [H]
    offset = 0 if bias is None else bias
    y = x @ weight.T + offset  # [S, H]
    low = x @ a.T  # [S, r]
    mixed, logits = mixer(y, g * (scale * low @ b.T), vectors, routing, past)  # evidence from before the rank gate
    d = g * (scale * (low * mixed("rank", r)) @ b.T)  # [S, H]
    out = g * (x @ weight.T) + offset + d * mixed("expert", h) + y * mixed("gain", h) + mixed("shift", h)
    return where_active(y, out, active), logits


def lime_slicefine(
    x: Array,
    weight: Array,
    bias: Array | None,
    rows: Array,
    vectors: Vectors,
    routing: Routing,
    past: Array | None = None,
    active: Active = None,
) -> tuple[Array, Array]:
    """LiME-SliceFine: `rows` [r, D], r >= E, replace the first r rows of W.

    The outputs of these rows are modulated before the bias is added. Routing reads only these outputs; gain scales the
    backbone's output.
    """
    h, r = weight.shape[0], rows.shape[0]
    offset = np.zeros(h) if bias is None else bias
    y = x @ weight.T + offset
    trained = x @ rows.T  # [S, r]
    mixed, logits = mixer(trained, trained, vectors, routing, past)
    out = y.copy()
    out[:, :r] = trained * mixed("rank", r) * mixed("expert", h)[:, :r] + offset[:r]
    out = out + y * mixed("gain", h) + mixed("shift", h)
    return where_active(y, out, active), logits


def lime_prompt(base: Array, offset: Array, vectors: Vectors, routing: Routing) -> Array:
    """LiME-PromptTuning: embeddings of the virtual tokens from the fixed `base` and the trained `offset`, [n, D] each.

    Each virtual token is routed separately.
    """
    width = base.shape[1]
    mixed, _ = mixer(base, offset, vectors, routing)
    prefix: Array = base + offset * mixed("expert", width) + base * mixed("gain", width) + mixed("shift", width)
    return prefix


def balance_losses(probs: Array, real: npt.NDArray[np.bool_]) -> tuple[float, float]:
    """Balance losses (importance, KL to uniform) of prob [B, S, E] over the tokens marked real (no padding), [B, S]."""
    mean = probs[real].mean(0)
    count = len(mean)
    return float(count * (mean**2).sum() - 1), float((mean * np.log(mean * count)).sum())
