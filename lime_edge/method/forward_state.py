"""State that the LiME layers of a model share during one forward call.

A model hook fills it before the backbone runs: which tokens are real, where the skill is active, and the routing
evidence of earlier tokens, which is stored with the key-value cache.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from lime_edge.errors import ConfigError

from .distributed import summed
from .routing import balance_losses

_ATTRIBUTE = "lime_evidence"  # of a cache, holds its Evidence


@dataclass(frozen=True)
class Evidence:
    """Flagged routing evidence of the newest tokens in a cache, [B, n-1, E+1] by layer identity.

    Beam search reorders the rows of a cache, but not this evidence.
    """

    layers: dict[int, Tensor] = field(default_factory=dict)
    tokens: int = 0  # number of tokens in the cache


def evidence_of(cache: Any) -> Evidence:
    """The evidence stored with a cache; pass it to `set_evidence` after cropping the cache back to this length."""
    evidence: Evidence = getattr(cache, _ATTRIBUTE, Evidence())
    return evidence


def set_evidence(cache: Any, evidence: Evidence) -> None:
    """Restore evidence in a cache that again has the length at which the evidence was taken."""
    setattr(cache, _ATTRIBUTE, evidence)


class ForwardState:
    """State of one forward call, from `begin` to `end`.

    Attributes:
        uses: Expert use of every layer that routed, [E+1], by layer identity; see `routing.expert_use`.
        balancing: Whether this training step evaluates the balance losses.
    """

    def __init__(self) -> None:
        self.uses: dict[int, Tensor] = {}
        self.balancing = True
        self._real: Tensor | None = None
        self._active: Tensor | None = None
        self._cached = 0
        self._before = Evidence()
        self._now: dict[int, Tensor] = {}  # separate from _before: with gradient checkpointing a layer runs twice

    def begin(self, attention_mask: Tensor | None, cache: Any = None, active: Tensor | None = None) -> None:
        """Reset the state for a new call.

        Args:
            attention_mask: [B, cached + S], 0 on padding, or None.
            cache: The key-value cache of the earlier tokens, or None.
            active: [B, S], where the skill applies; None means everywhere.
        """
        self.uses.clear()
        self._active = active
        self._real = attention_mask.bool() if attention_mask is not None and attention_mask.dim() == 2 else None
        self._cached = 0 if cache is None else int(cache.get_seq_length())
        self._before = evidence_of(cache) if self._cached else Evidence()
        self._now = {}

    def end(self, cache: Any) -> None:
        """Store the evidence of this call in the cache that the call filled; do nothing if there is none."""
        if cache is not None and self._now:
            set_evidence(cache, Evidence(self._now, int(cache.get_seq_length())))

    def real_for(self, logits: Tensor) -> Tensor | None:
        """Mask [B, S] of the S newest tokens, False on padding; None if there is no padding mask."""
        return None if self._real is None else self._real[:, -logits.shape[1] :]

    def past_of(self, layer: object) -> Tensor | None:
        """Flagged evidence of the earlier tokens, [B, n-1, E+1]; None at the start of a row.

        Raises:
            ConfigError: The cache was filled without the adapter, or cropped.
        """
        if self._cached and (self._before.tokens != self._cached or id(layer) not in self._before.layers):
            raise ConfigError(
                f"the cache holds {self._cached} tokens, but no routing evidence of that length: n-gram windows cannot "
                "continue from it; fill the cache with the adapter enabled, and do not crop it"
            )
        return self._before.layers.get(id(layer))

    def remember(self, layer: object, flagged: Tensor, count: int) -> None:
        """Keep the last `count` tokens' evidence for the next cached step."""
        before = self._before.layers.get(id(layer))
        if before is None:
            before = flagged.new_zeros(len(flagged), count, flagged.shape[-1])
        self._now[id(layer)] = torch.cat([before, flagged.detach()], 1)[:, -count:]

    def active_for(self, y: Tensor) -> Tensor | None:
        """Where the skill applies, [B, S, 1], in the dtype of `y`; None means everywhere."""
        return None if self._active is None else self._active[..., None].to(y.dtype)

    def balance_loss(self, coefficients: tuple[float, float], share: float | None = None) -> Tensor | None:
        """Weighted balance losses over the tokens of all processes, mean over the layers; None if no layer routed.

        Args:
            coefficients: Weights of the importance and KL losses.
            share: See `distributed.summed`.
        """
        if not self.uses:
            return None
        importance, divergence = balance_losses(summed(torch.stack([*self.uses.values()]), share))  # [layers] each
        return coefficients[0] * importance.mean() + coefficients[1] * divergence.mean()
