"""LiME-PromptTuning: virtual tokens before the prompt, whose embeddings are the skill.

The embedding of virtual token i is base_i + offset_i * mix_i (+ gain and shift): base_i is fixed, the row of the
vocabulary that it started from; offset_i and the vectors that mix_i is mixed of are trained. They depend on nothing
but each other, so that a skill is the n finished embeddings: a soft prefix. Source: arXiv 2604.02338, section 3.

Virtual tokens have the ids that follow the vocabulary's. `with_virtual` puts them into the arguments of a model's call,
`LimePrompt`, around the input embedding, looks them up. Knows nothing of files or training loops.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lime_edge.contract.vector_kinds import Kind
from lime_edge.errors import ConfigError

from . import wrapped_module
from .config import LimeConfig
from .layer import LimeLayer, LowRank
from .modulation import film
from .registry import register_variant


@register_variant("prompt")
class LimePrompt(LimeLayer):
    """The input embedding with r virtual tokens behind its vocabulary.

    Every virtual token is routed by itself (no windows), by base_i and offset_i.
    """

    shared_names = ("lime_base",)
    fixed_names = ("lime_base",)
    vector_names = (*LimeLayer.vector_names, "lime_offset")
    adapter_layer_names = (*LimeLayer.adapter_layer_names, "lime_base", "lime_offset")
    fixed_routing = {"window": 1}  # noqa: RUF012
    targets = ("embed_tokens", "wte")
    lime_base: nn.ParameterDict
    lime_offset: nn.ParameterDict

    def add_shared(self, adapter_name: str, config: LimeConfig) -> None:
        if not isinstance(self.get_base_layer(), nn.Embedding) or "rank" in config.kinds or config.shared_vector:
            raise ConfigError("prompt tuning goes on an Embedding, with expert, gain and shift alone")
        rows = wrapped_module.weight(self.get_base_layer()).T.detach()  # [V, H]
        picked = rows[torch.randint(len(rows), (config.r,))].float()
        self.lime_base[adapter_name] = nn.Parameter(picked.clone())
        self.lime_offset[adapter_name] = nn.Parameter(torch.zeros_like(picked))

    @property
    def virtual_tokens(self) -> int:
        """How many there are now: none while the adapter is off."""
        on = not self.disable_adapters and self.adapter in self.lime_config
        return self.lime_config[self.adapter].r if on else 0

    def prefix(self) -> Tensor:
        """Embeddings of the virtual tokens, [r, H], in float32."""
        if self.adapter not in self.lime_base:
            raise ConfigError("this adapter has no virtual tokens")
        y, d, some = self.lime_base[self.adapter], self.lime_offset[self.adapter], self.routed_by()
        weights = self.route(y[None, :, some], d[None, :, some])[0]
        out = film(y, weights, self.held("gain"), self.held("shift"))
        expert = self.held("expert")
        return out if expert is None else torch.addcmul(out, d, weights @ expert)

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Ids [B, S] -> [B, S, H]; ids from the vocabulary's size on are virtual tokens."""
        if not self.virtual_tokens:
            out: Tensor = self.base_layer(x, *args, **kwargs)
            return out
        at = x - self.in_features  # [B, S]
        known: Tensor = self.base_layer(x.masked_fill(at >= 0, 0), *args, **kwargs)
        virtual = self.prefix().to(known.dtype)[at.clamp_min(0)]
        return torch.where((at >= 0)[..., None], virtual, known)

    def real_for(self, logits: Tensor) -> Tensor | None:
        return None  # virtual tokens are never padding

    def low_rank(self) -> LowRank:
        raise NotImplementedError("a graph has nothing of prompt tuning but the skill's prefix")

    def vectors(self) -> dict[Kind, Tensor]:
        training = self.training
        prefix = self.eval().prefix().reshape(1, -1)  # without the routing noise
        self.train(training)
        return {"prefix": prefix}

    def set_vectors(self, given: Mapping[Kind, Tensor]) -> None:
        """A finished prefix: all of it becomes offset, to be modulated from there."""
        base, name = self.lime_base[self.adapter], self.adapter
        self.lime_offset[name].copy_(given["prefix"].reshape(base.shape).to(base.device) - base)
        for kind in self.lime_config[name].kinds:
            getattr(self, f"lime_{kind}")[name].fill_(float(kind == "expert"))


def with_virtual(given: Mapping[str, Any], count: int, first: int, cached: bool) -> dict[str, Any]:
    """The arguments of a causal model's call with virtual tokens before every row.

    Args:
        given: Arguments by name.
        count: Virtual tokens.
        first: Id of the first of them.
        cached: They are in the cache already: only masks and positions know of them.

    Raises:
        ConfigError: The call has no token ids.
    """
    ids = given.get("input_ids")
    if ids is None:
        raise ConfigError("prompt tuning puts virtual tokens before input_ids, which this call lacks")
    found, rows = dict(given), len(ids)
    before = torch.arange(count, device=ids.device).expand(rows, count)
    mask, positions, labels, keep = (
        given.get(key) for key in ("attention_mask", "position_ids", "labels", "logits_to_keep")
    )
    if mask is not None:
        found["attention_mask"] = torch.cat([mask.new_ones(rows, count), mask], 1)
    if positions is not None:
        later = positions + count
        found["position_ids"] = later if cached else torch.cat([before, later.expand(rows, -1)], 1)
    if cached:
        return found
    found["input_ids"] = torch.cat([before + first, ids], 1)
    if isinstance(keep, Tensor):
        found["logits_to_keep"] = keep + count  # labels, if any, are those of the logits kept
    elif labels is not None:
        found["labels"] = torch.cat([labels.new_full((rows, count), -100), labels], 1)
    return found
