"""Modulation with a backward pass of its own: the same formula, fewer [B, S, H] arrays made and kept.

`modulate` is the formula; autograd would keep an array of every product in it. `fused` keeps what the
layer has anyway (y, d, the weights and the vectors), works on one scratch array, and turns the
gradients of vectors and weights into matrix products. Knows nothing of layers or routing.
Source: LiME (arXiv 2604.02338), section 3, with the gain and shift of FiLM (arXiv 1709.07871).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def modulate(
    y: Tensor, d: Tensor, weights: Tensor, expert: Tensor | None, gain: Tensor | None, shift: Tensor | None
) -> Tensor:
    """out = y + d * (w @ p) + y * (w @ u) + w @ b, as it reads.

    Args:
        y: Frozen representation [..., H].
        d: Adapted representation [..., H].
        weights: w, [..., E] as y, or one row for all tokens; 0 where no skill is active.
        expert, gain, shift: p, u, b, each [E, H]; None where a skill has none.

    Returns:
        [..., H].
    """
    out = y
    if expert is not None:
        out = torch.addcmul(out, d, weights @ expert)
    if gain is not None:
        out = torch.addcmul(out, y, weights @ gain)
    if shift is not None:
        out = out + weights @ shift
    return out


def fused(
    y: Tensor, d: Tensor, weights: Tensor, expert: Tensor | None, gain: Tensor | None, shift: Tensor | None
) -> Tensor:
    """`modulate` with its own backward pass; the same arguments and values."""
    given = (y, d, weights, expert, gain, shift)
    if not (torch.is_grad_enabled() and any(one is not None and one.requires_grad for one in given)):
        return modulate(*given)
    found: Tensor = _Modulate.apply(*given)  # type: ignore[no-untyped-call]
    return found


class _Modulate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *given: Tensor | None) -> Tensor:
        y, d, weights, expert, gain, shift = given
        assert y is not None  # the first three always are there
        assert d is not None
        assert weights is not None
        ctx.save_for_backward(y if gain is not None else None, d if expert is not None else None, *given[2:])
        return modulate(y, d, weights, expert, gain, shift)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (g,) = grads
        y, d, weights, expert, gain, shift = ctx.saved_tensors
        by_y, by_d, by_w, by_expert, by_gain, by_shift = ctx.needs_input_grad
        h, count = g.shape[-1], weights.shape[-1]
        flat, w = g.reshape(-1, h), weights.reshape(-1, count)  # [N, H]; [N, E], or [1, E] for all tokens
        found: list[Tensor | None] = [g if by_y else None, None, None, None, None, None]
        if by_y and gain is not None:
            found[0] = torch.addcmul(g, g, weights @ gain)
        if by_d and expert is not None:
            found[1] = g * (weights @ expert)
        into = torch.zeros_like(w) if by_w else None  # [N or 1, E]
        for place, factor, vectors, wanted in (
            (3, d, expert, by_expert),
            (4, y, gain, by_gain),
            (5, None, shift, by_shift),
        ):
            if vectors is None or not (wanted or by_w):
                continue
            felt = flat if factor is None else flat * factor.reshape(-1, h)  # dL / d(w @ vectors), [N, H]
            if len(w) == 1 and len(felt) > 1:
                felt = felt.sum(0, keepdim=True)
            if wanted:
                found[place] = w.t() @ felt
            if into is not None:
                into.addmm_(felt, vectors.t())
        if into is not None:
            found[2] = into.view_as(weights)
        return tuple(found)
