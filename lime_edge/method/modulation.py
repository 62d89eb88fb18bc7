"""Modulation of a projection's output by a skill, with few temporary and saved [B, S, H] arrays.

`experts` adds the modulated adapter without computing the adapted representation: it multiplies the vectors into the
adapter's second matrix. `film` scales and shifts, with its own backward pass. Source: LiME (arXiv 2604.02338), section
3; FiLM (arXiv 1709.07871).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def experts(y: Tensor, low: Tensor, matrix: Tensor, weights: Tensor, vectors: Tensor) -> Tensor:
    """y + d * (w @ p), where d = low @ matrix.T, as one matrix product over E * r columns.

    Args:
        y: The output to add to, [B, S, H].
        low: The adapter's inner representation, [B, S, r].
        matrix: The adapter's second matrix, scaled, [H, r].
        weights: w, [B, S, E], or one row for all tokens; 0 where no skill is active.
        vectors: p, [E, H].

    Returns:
        [B, S, H].
    """
    columns = (weights[..., None] * low[..., None, :]).flatten(-2)  # [B, S, E * r]
    rows = (vectors[:, None] * matrix.T).flatten(0, 1).to(y.dtype)  # [E * r, H]
    return torch.addmm(y.flatten(0, -2), columns.flatten(0, -2), rows).view_as(y)


def modulate(y: Tensor, weights: Tensor, gain: Tensor | None, shift: Tensor | None) -> Tensor:
    """y + y * (w @ u) + w @ b, written as in the formula.

    Args:
        y: [..., H].
        weights: w, [..., E], or one row for all tokens; 0 where no skill is active.
        gain, shift: u and b, each [E, H]; None if the skill has none.

    Returns:
        [..., H].
    """
    out = y if gain is None else torch.addcmul(y, y, weights @ gain)
    return out if shift is None else out + weights @ shift


def film(y: Tensor, weights: Tensor, gain: Tensor | None, shift: Tensor | None) -> Tensor:
    """`modulate` with its own backward pass, which saves y as the only large array. Same arguments and values."""
    if gain is None and shift is None:
        return y
    given = (y, weights, gain, shift)
    if not (torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in given)):
        return modulate(*given)
    out: Tensor = _Film.apply(*given)  # type: ignore[no-untyped-call]
    return out


class _Film(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, y: Tensor, weights: Tensor, gain: Tensor | None, shift: Tensor | None) -> Tensor:
        ctx.save_for_backward(None if gain is None else y, weights, gain, shift)
        return modulate(y, weights, gain, shift)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (g,) = grads
        y, weights, gain, shift = ctx.saved_tensors
        by_y, by_w, by_gain, by_shift = ctx.needs_input_grad
        h = g.shape[-1]
        flat, w = g.reshape(-1, h), weights.reshape(-1, weights.shape[-1])  # [N, H]; [N, E], or [1, E] for all tokens
        gradients: list[Tensor | None] = [g if by_y else None, None, None, None]
        if by_y and gain is not None:
            gradients[0] = torch.addcmul(g, g, weights @ gain)
        into = torch.zeros_like(w) if by_w else None  # [N or 1, E]
        for place, factor, vectors, wanted in ((2, y, gain, by_gain), (3, None, shift, by_shift)):
            if vectors is None or not (wanted or by_w):
                continue
            felt = flat if factor is None else flat * factor.reshape(-1, h)  # dL / d(w @ vectors), [N, H]
            if len(w) == 1 and len(felt) > 1:
                felt = felt.sum(0, keepdim=True)
            if wanted:
                gradients[place] = w.t() @ felt
            if into is not None:
                into.addmm_(felt, vectors.t())
        if into is not None:
            gradients[1] = into.view_as(weights)
        return tuple(gradients)
