"""What the LiME layers of one model share about the call under way.

A model hook fills it before the backbone runs: which tokens are real, where the skill is active, and
the routing evidence of the tokens before, which travels with the key-value cache. Knows nothing of
layers' parameters.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from lime_edge.errors import ConfigError

from .distributed import summed
from .routing import balance_losses

_HELD = "lime_evidence"  # attribute of a cache


@dataclass(frozen=True)
class Evidence:
    """Flagged routing evidence of the newest tokens in a cache, [B, n-1, E+1] by layer identity.

    It is of the rows as they were: a beam search, which swaps rows of a cache, does not swap it.
    """

    layers: dict[int, Tensor] = field(default_factory=dict)
    tokens: int = 0  # how many the cache held


def evidence_of(cache: Any) -> Evidence:
    """What travels with a cache; to be given back with `set_evidence` after a crop to the same length."""
    held: Evidence = getattr(cache, _HELD, Evidence())
    return held


def set_evidence(cache: Any, evidence: Evidence) -> None:
    """The cache is back at the length it had when `evidence` was taken from it."""
    setattr(cache, _HELD, evidence)


class ForwardState:
    """State of one forward call, from `begin` to `end`.

    Attributes:
        uses: How much every layer that routed used its experts, [E+1], by layer identity.
        balancing: Whether this training step evaluates the balance losses.
    """

    def __init__(self) -> None:
        self.uses: dict[int, Tensor] = {}
        self.balancing = True
        self._real: Tensor | None = None
        self._active: Tensor | None = None
        self._cached = 0
        self._before = Evidence()
        self._now: dict[int, Tensor] = {}  # apart from _before: a checkpointed layer runs twice

    def begin(self, attention_mask: Tensor | None, cache: Any = None, active: Tensor | None = None) -> None:
        """Forget the call before.

        Args:
            attention_mask: [B, cached + S], 0 on padding, or None.
            cache: The key-value cache with the tokens before, or None.
            active: [B, S], where the skill applies; None means everywhere.
        """
        self.uses.clear()
        self._active = active
        self._real = attention_mask.bool() if attention_mask is not None and attention_mask.dim() == 2 else None
        self._cached = 0 if cache is None else int(cache.get_seq_length())
        self._before = evidence_of(cache) if self._cached else Evidence()
        self._now = {}

    def end(self, cache: Any) -> None:
        """Give the evidence of this call to the cache that it filled, or to None."""
        if cache is not None and self._now:
            set_evidence(cache, Evidence(self._now, int(cache.get_seq_length())))

    def real_for(self, logits: Tensor) -> Tensor | None:
        """[B, S], False on padding, for the S newest tokens."""
        return None if self._real is None else self._real[:, -logits.shape[1] :]

    def past_of(self, layer: object) -> Tensor | None:
        """Flagged evidence of the tokens before, [B, n-1, E+1]; None at the start of a row.

        Raises:
            ConfigError: The cache was filled or cropped behind the layers' back.
        """
        if self._cached and (self._before.tokens != self._cached or id(layer) not in self._before.layers):
            raise ConfigError(
                f"the cache holds {self._cached} tokens and the routing evidence of another length: n-gram windows "
                "cannot go on from there; fill the cache with the adapter on, and do not crop it"
            )
        return self._before.layers.get(id(layer))

    def remember(self, layer: object, flagged: Tensor, count: int) -> None:
        """Keep the last `count` tokens' evidence for the next cached step."""
        before = self._before.layers.get(id(layer))
        if before is None:
            before = flagged.new_zeros(len(flagged), count, flagged.shape[-1])
        self._now[id(layer)] = torch.cat([before, flagged.detach()], 1)[:, -count:]

    def active_for(self, y: Tensor) -> Tensor | None:
        """[B, S, 1] in the type of `y`."""
        return None if self._active is None else self._active[..., None].to(y.dtype)

    def balance_loss(self, coefficients: tuple[float, float], share: float | None = None) -> Tensor | None:
        """Weighted balance losses of all processes' tokens, mean over the layers; None when nothing routed.

        Args:
            coefficients: Of the importance and KL losses.
            share: See `processes.summed`.
        """
        if not self.uses:
            return None
        importance, divergence = balance_losses(summed(torch.stack([*self.uses.values()]), share))  # [layers] each
        return coefficients[0] * importance.mean() + coefficients[1] * divergence.mean()
