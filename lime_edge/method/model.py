"""`LimeModel`: the PEFT tuner that inserts LiME layers into a model and adds the balance losses to its loss."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from typing import Any, cast

import torch
from peft.tuners.tuners_utils import BaseTuner
from torch import nn

from lime_edge.contract.module_table import ModuleTable
from lime_edge.contract.vector_kinds import PREFIX
from lime_edge.errors import ConfigError

from .config import LimeConfig
from .decoder import allowed, decoder_name, in_tower
from .features import with_features
from .forward_state import ForwardState
from .layer import LimeLayer
from .prompt_tuning import LimePrompt, with_virtual
from .registry import VARIANTS

#: Projections of a decoder layer in the order of an exported graph; the modules of Phi-3 have another order.
_ORDER = ("q_proj", "k_proj", "v_proj", "qkv_proj", "o_proj", "gate_proj", "up_proj", "gate_up_proj", "down_proj")


def _place(name: str) -> tuple[int, int]:
    """Sort key: layer and projection. Other modules come first, in the order of the model."""
    match = re.search(r"(?:^|\.)layers\.(\d+)\.(?:.*\.)?(\w+)$", name)
    return (int(match[1]), _ORDER.index(match[2])) if match and match[2] in _ORDER else (-1, 0)


class LimeModel(BaseTuner):
    """PEFT tuner for `LimeConfig`; ``peft.get_peft_model`` creates it."""

    prefix = "lime_"
    tuner_layer_cls = LimeLayer
    target_module_mapping: dict[str, list[str]] = {}  # noqa: RUF012 (declared so by PEFT)

    def __init__(self, model: nn.Module, *args: Any, **kwargs: Any) -> None:
        context = ForwardState()
        object.__setattr__(self, "context", context)  # before nn.Module.__init__, which injects the layers
        super().__init__(model, *args, **kwargs)
        self.context = context
        self.steps = 0  # training steps so far, for `balance_every`
        self._extra_logits = 0  # number of logits of virtual tokens, which the caller must not see
        self._share: float | None = None  # see `distributed.summed`
        self._parameters_of_forward = tuple(inspect.signature(model.forward).parameters)
        self._hooks = (
            model.register_forward_pre_hook(self._before, with_kwargs=True),
            model.register_forward_hook(self._after),
        )

    def unload(self) -> nn.Module:
        """Remove the LiME layers and hooks, and return the original backbone."""
        for hook in self._hooks:
            hook.remove()
        return super().unload()

    @property
    def lime_config(self) -> LimeConfig:
        """The configuration of the active adapter."""
        return cast("LimeConfig", self.peft_config[self.active_adapters[0]])

    def layers(self) -> dict[str, LimeLayer]:
        """The layers of the active adapter by their names in the backbone, in the order of an exported graph.

        Those of towers follow all of the language model.
        """
        layers = {name: module for name, module in self.model.named_modules() if isinstance(module, LimeLayer)}
        mine = {name: layer for name, layer in layers.items() if layer.adapter in layer.lime_config}
        decoder = decoder_name(self.model)
        return {name: mine[name] for name in sorted(mine, key=lambda name: (in_tower(name, decoder), _place(name)))}

    def table(self) -> ModuleTable:
        """The adapted modules in the order of an exported graph."""
        modules = tuple(layer.module(name) for name, layer in self.layers().items())
        if self.lime_config.base == "prompt":
            return ModuleTable(modules, 1, PREFIX)
        return ModuleTable(modules, self.lime_config.routing.experts, self.lime_config.kinds)

    def _check_target_module_exists(self, peft_config: Any, key: str) -> Any:  # type: ignore[override]
        """Restrict PEFT's selection to the language model and the towers that the configuration names."""
        decoder = decoder_name(self.model)
        return allowed(key, decoder, peft_config.towers) and super()._check_target_module_exists(peft_config, key)

    def _create_and_replace(
        self,
        peft_config: Any,  # a LimeConfig
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        current_key: str,
        parameter_name: str | None = None,
    ) -> None:
        base = VARIANTS[peft_config.base]
        if isinstance(target, LimeLayer):
            if type(target) is not base:
                raise ConfigError(f"{current_key} is a {type(target).__name__}: a second adapter needs the same base")
            target.update_layer(adapter_name, peft_config)
            return
        layer: LimeLayer = base(target, adapter_name, peft_config, self.context)
        if adapter_name not in self.active_adapters:
            layer.requires_grad_(False)
        self._replace_module(parent, target_name, layer, target)

    def _cast_adapter_dtype(self, adapter_name: str, autocast_adapter_dtype: bool = True) -> None:
        """Keep `requires_grad`: for a half-precision backbone PEFT recreates parameters in float32, all trainable."""
        free = {name: parameter.requires_grad for name, parameter in self.model.named_parameters()}
        super()._cast_adapter_dtype(adapter_name, autocast_adapter_dtype)
        for name, parameter in self.model.named_parameters():
            parameter.requires_grad_(free[name])

    def _check_tied_modules(self, model: nn.Module, peft_config: Any) -> None:
        """Skip PEFT's warning about adapting one of two tied embeddings: LiME never merges, so both stay tied."""

    def _before(
        self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        # arguments of LiME, not of the backbone: [B, S], [F, H] and [B, S]
        active, features, places = (kwargs.pop(name, None) for name in ("skill_active", "features", "feature_ids"))
        given = dict(zip(self._parameters_of_forward, args, strict=False)) | kwargs
        self.context.balancing = model.training and self.steps % self.lime_config.balance_every == 0
        self.steps += model.training
        self._extra_logits = 0
        if self.lime_config.base == "prompt":
            args, kwargs = (), self._with_virtual(given, active)
            given = kwargs
        if features is not None:
            args, kwargs = (), with_features(model, given, features, places)
            given = kwargs
        self.context.begin(given.get("attention_mask"), _cache_of(given), active)
        # the Trainer passes it; the loss is then the share of this process in a sum over all processes
        self._share = None if given.get("num_items_in_batch") is None else 1.0
        return args, kwargs

    def _with_virtual(self, given: dict[str, Any], active: Any) -> dict[str, Any]:
        """The arguments of a call with the virtual tokens of the one prompt layer, if that is enabled."""
        layer = next(iter(self.layers().values()))
        count = layer.virtual_tokens if isinstance(layer, LimePrompt) else 0
        if not count:
            return given
        if active is not None:
            raise ConfigError("virtual tokens come before the prompt: a skill cannot be active on the answer alone")
        cache, kept = _cache_of(given), given.get("logits_to_keep")
        cached = cache is not None and cache.get_seq_length() > 0
        some = isinstance(kept, torch.Tensor) or bool(kept)  # 0 and None mean all
        self._extra_logits = 0 if cached or some else count
        return with_virtual(given, count, layer.in_features, cached)

    def _after(self, model: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        self.context.end(getattr(output, "cache", None))
        if self._extra_logits:
            output["logits"] = output["logits"][:, self._extra_logits :]
        task_loss = getattr(output, "loss", None)
        if model.training and isinstance(task_loss, torch.Tensor):
            balance = self.context.balance_loss(self.lime_config.balance, self._share)
            if balance is not None:
                output["loss"] = task_loss + balance.to(task_loss.dtype)
        return output


def _cache_of(given: Mapping[str, Any]) -> Any:
    """The key-value cache in the arguments of a call; transformers accepts a new and an old name."""
    cache = given.get("cache")
    return given.get("past_key_values") if cache is None else cache
