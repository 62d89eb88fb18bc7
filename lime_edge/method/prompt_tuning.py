"""LiME-PromptTuning: virtual tokens before the prompt, whose embeddings are the skill.

The embedding of virtual token i is base_i + offset_i * mix_i (+ gain and shift). base_i is fixed: a row of the
vocabulary chosen at the start. offset_i and the expert vectors mixed into mix_i are trained. The embeddings do not
depend on the prompt, so a skill stores the n finished embeddings: a soft prefix. Source: arXiv 2604.02338, section 3.

The ids of the virtual tokens follow those of the vocabulary. `with_virtual` inserts them into the arguments of a model
call; `LimePrompt`, which wraps the input embedding, looks them up.
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
    """The input embedding, extended by r virtual tokens after its vocabulary.

    Each virtual token is routed separately, without windows, by base_i and offset_i.
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
            raise ConfigError(
                "prompt tuning adapts an Embedding, with the kinds expert, gain and shift alone and no shared vector"
            )
        rows = wrapped_module.weight(self.get_base_layer()).T.detach()  # [V, H]
        picked = rows[torch.randint(len(rows), (config.r,))].float()
        self.lime_base[adapter_name] = nn.Parameter(picked.clone())
        self.lime_offset[adapter_name] = nn.Parameter(torch.zeros_like(picked))

    @property
    def virtual_tokens(self) -> int:
        """Number of virtual tokens; 0 while the adapter is disabled."""
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
        """Ids [B, S] -> [B, S, H]; ids beyond the vocabulary are virtual tokens."""
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
        raise NotImplementedError("prompt tuning has no low-rank adapter: a graph takes only the skill's prefix")

    def vectors(self) -> dict[Kind, Tensor]:
        training = self.training
        prefix = self.eval().prefix().reshape(1, -1)  # without the routing noise
        self.train(training)
        return {"prefix": prefix}

    def set_vectors(self, given: Mapping[Kind, Tensor]) -> None:
        """Load a finished prefix: the whole difference from the base becomes the offset, with neutral modulation."""
        base, name = self.lime_base[self.adapter], self.adapter
        self.lime_offset[name].copy_(given["prefix"].reshape(base.shape).to(base.device) - base)
        for kind in self.lime_config[name].kinds:
            getattr(self, f"lime_{kind}")[name].fill_(float(kind == "expert"))


def with_virtual(given: Mapping[str, Any], count: int, first: int, cached: bool) -> dict[str, Any]:
    """Insert virtual tokens before every row into the arguments of a causal model's call.

    Args:
        given: Arguments by name.
        count: Number of virtual tokens.
        first: Id of the first virtual token.
        cached: Whether they are already in the cache; then only mask and positions change.

    Returns:
        A new dictionary of arguments.

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
        found["logits_to_keep"] = keep + count  # labels, if given, belong to the kept logits only
    elif labels is not None:
        found["labels"] = torch.cat([labels.new_full((rows, count), -100), labels], 1)
    return found
