"""What the LiME layers of one model share about the call under way.

A model hook fills it before the backbone runs: which tokens are real, where the skill is active, and
the routing evidence of the tokens before. Knows nothing of layers' parameters.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class Context:
    """State of one forward call; `begin` starts it.

    Attributes:
        balance: (importance, KL) of every layer that routed, by layer identity.
        balancing: Whether this training step evaluates the balance losses.
    """

    def __init__(self) -> None:
        self.balance: dict[int, tuple[Tensor, Tensor]] = {}
        self.balancing = True
        self._real: Tensor | None = None
        self._past: dict[int, Tensor] = {}
        self._active: Tensor | None = None

    def begin(self, attention_mask: Tensor | None, cached_tokens: int, active: Tensor | None = None) -> None:
        """Forget the call before.

        Args:
            attention_mask: [B, cached + S], 0 on padding, or None.
            cached_tokens: Tokens that the key-value cache already holds; 0 starts new rows.
            active: [B, S], where the skill applies; None means everywhere.
        """
        self.balance.clear()
        self._active = active
        self._real = attention_mask.bool() if attention_mask is not None and attention_mask.dim() == 2 else None
        if cached_tokens == 0:
            self._past.clear()

    def real_for(self, logits: Tensor) -> Tensor | None:
        """[B, S], False on padding, for the S newest tokens."""
        return None if self._real is None else self._real[:, -logits.shape[1] :]

    def past_of(self, layer: object) -> Tensor | None:
        """Flagged evidence of the tokens before, [B, n-1, E+1]."""
        return self._past.get(id(layer))

    def remember(self, layer: object, flagged: Tensor, count: int) -> None:
        """Keep the last `count` tokens' evidence for the next cached step."""
        if torch.is_grad_enabled():
            return
        before = self._past.get(id(layer))
        if before is None:
            before = flagged.new_zeros(len(flagged), count, flagged.shape[-1])
        self._past[id(layer)] = torch.cat([before, flagged], 1)[:, -count:]

    def active_for(self, y: Tensor) -> Tensor | None:
        """[B, S, 1] in the type of `y`."""
        return None if self._active is None else self._active[..., None].to(y.dtype)

    def past(self) -> dict[int, Tensor]:
        """The evidence remembered so far, to `rewind` to."""
        return dict(self._past)

    def rewind(self, past: dict[int, Tensor]) -> None:
        """Forget what was remembered since `past`: the cache was cropped back to there."""
        self._past = dict(past)

    def balance_loss(self, coefficients: tuple[float, float]) -> Tensor | None:
        """Weighted balance losses, mean over the layers; None when nothing routed."""
        if not self.balance:
            return None
        pairs: list[tuple[Any, Any]] = list(self.balance.values())
        importance = torch.stack([i for i, _ in pairs]).mean()
        divergence = torch.stack([k for _, k in pairs]).mean()
        return coefficients[0] * importance + coefficients[1] * divergence
