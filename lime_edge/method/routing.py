"""Zero-parameter routing in torch: evidence, causal n-gram windows, selection, balance losses.

LiME (arXiv 2604.02338), made causal: the weights of token t of row b depend only on tokens <= t of row b. Shapes: B
rows, S tokens, E experts.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from lime_edge.contract.routing import Routing

_CLAMP = 1e-6


def evidence(y: Tensor, d: Tensor, routing: Routing, scale: Literal["token", "batch"] = "token") -> Tensor:
    """Routing logits from the first E components of both representations.

    Args:
        y: Frozen representation [..., H]; only the first E components are read.
        d: Adapted representation [..., H], before any rank gate; only the first E components are read.
        routing: The constants.
        scale: "token" divides by the largest magnitude of each token. "batch" divides by one maximum over the batch, as
            in the paper, so that tokens depend on other rows and on later tokens.

    Returns:
        Logits [..., E] in float32.
    """
    e, g = routing.experts, routing.gamma
    return (1 - g) * _scaled(y[..., :e].float(), scale) + g * _scaled(d[..., :e].float(), scale)


def _scaled(v: Tensor, scale: str) -> Tensor:
    largest = v.abs().amax() if scale == "batch" else v.abs().amax(-1, keepdim=True)
    return v / largest.clamp_min(_CLAMP)


def window_mean(logits: Tensor, n: int, past: Tensor | None = None, real: Tensor | None = None) -> Tensor:
    """Mean of the logits of tokens t-n+1..t, or of fewer at the start of a row.

    Args:
        logits: [B, S, E].
        n: Window length; 1 returns the logits unchanged.
        past: Logits and flags of the previous n - 1 tokens, [B, n-1, E+1]; the flag, in the last component, is 1 where
            the token exists.
        real: [B, S], False on padding, which no window includes.

    Returns:
        [B, S, E].
    """
    if n == 1:
        return logits
    flagged = with_flag(logits, real)
    before = flagged.new_zeros(len(logits), n - 1, flagged.shape[-1]) if past is None else past
    sums = torch.cat([before, flagged], 1).unfold(1, n, 1).sum(-1)  # [B, S, E+1]
    return sums[..., :-1] / sums[..., -1:].clamp_min(1)


def with_flag(logits: Tensor, real: Tensor | None) -> Tensor:
    """Append a flag, 1 for real tokens, and set padding to zero: [B, S, E] -> [B, S, E+1]."""
    flag = logits.new_ones(*logits.shape[:2], 1) if real is None else real.to(logits.dtype)[..., None]
    return torch.cat([logits * flag, flag], -1)


def select(logits: Tensor, routing: Routing) -> tuple[Tensor, Tensor]:
    """Expert weights from logits; experts that tie with the last selected one are selected too.

    Args:
        logits: [..., E], window-averaged.
        routing: The constants.

    Returns:
        Weights [..., E], whose rows sum to 1, and the softmax probabilities [..., E] they come from.
    """
    prob = torch.softmax(logits / routing.temperature, -1)
    kth = prob.topk(routing.keep, -1).values[..., -1:]
    top = routing.theta * prob.amax(-1, keepdim=True)
    match routing.mode:
        case "hard":
            kept = prob * (prob >= kth)
        case "auto":
            kept = prob * (prob >= torch.maximum(kth, top))
        case "soft":
            kept = prob * torch.sigmoid((prob - kth) / routing.softness)
        case "auto_soft":
            kept = prob * torch.sigmoid((prob - top) / routing.softness)
    return kept / kept.sum(-1, keepdim=True), prob


def expert_use(prob: Tensor, real: Tensor | None = None) -> Tensor:
    """Use of each expert, as sums that can be added over batches and processes.

    Args:
        prob: [B, S, E].
        real: [B, S], False on padding.

    Returns:
        Sums of the probabilities over real tokens, followed by the number of real tokens, [E+1].
    """
    return with_flag(prob, real).sum((0, 1))


def balance_losses(use: Tensor) -> tuple[Tensor, Tensor]:
    """Importance E * sum(mean^2) - 1 and KL(mean || uniform); both are 0 when the experts are used evenly.

    Args:
        use: From `expert_use`, [..., E+1].

    Returns:
        Importance and KL, each [...].
    """
    mean = use[..., :-1] / use[..., -1:].clamp_min(1)  # [..., E]
    count = mean.shape[-1]
    return count * mean.square().sum(-1) - 1, (mean * (mean * count).clamp_min(_CLAMP).log()).sum(-1)
