"""`LimeModel`: puts LiME layers into a model, PEFT's way, and adds the balance losses to its loss.

Knows nothing of files, skills or training loops.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from peft.tuners.tuners_utils import BaseTuner
from torch import nn

from .context import Context
from .contract import ModuleTable
from .errors import ConfigError
from .layer import BASES, LimeLayer

if TYPE_CHECKING:
    from .peft_config import LimeConfig  # registers this module's model


class LimeModel(BaseTuner):
    """PEFT tuner for `LimeConfig`; made by ``peft.get_peft_model``."""

    prefix = "lime_"
    tuner_layer_cls = LimeLayer
    target_module_mapping: dict[str, list[str]] = {}

    def __init__(self, model: nn.Module, *args: Any, **kwargs: Any) -> None:
        context = Context()
        object.__setattr__(self, "context", context)  # before nn.Module.__init__, which injects the layers
        super().__init__(model, *args, **kwargs)
        self.context = context
        self._steps = 0
        model.register_forward_pre_hook(self._before, with_kwargs=True)
        model.register_forward_hook(self._after)

    @property
    def lime_config(self) -> LimeConfig:
        """Of the active adapter."""
        return self.peft_config[self.active_adapters[0]]  # type: ignore[no-any-return]

    def layers(self) -> dict[str, LimeLayer]:
        """Every LiME layer by its name in the backbone, in the order of the model."""
        return {name: module for name, module in self.model.named_modules() if isinstance(module, LimeLayer)}

    def table(self) -> ModuleTable:
        """The adapted modules in the order of the model."""
        modules = tuple(layer.module(name) for name, layer in self.layers().items())
        return ModuleTable(modules, self.lime_config.routing.experts, self.lime_config.kinds)

    def _create_and_replace(
        self,
        peft_config: LimeConfig,
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        current_key: str,
        **_: Any,
    ) -> None:
        if isinstance(target, LimeLayer):
            target.update_layer(adapter_name, peft_config)
            return
        if peft_config.base not in BASES:
            raise ConfigError(f"base is {peft_config.base!r}; expected one of {', '.join(BASES)}")
        layer = BASES[peft_config.base](target, adapter_name, peft_config, self.context)
        if adapter_name not in self.active_adapters:
            layer.requires_grad_(False)
        self._replace_module(parent, target_name, layer, target)

    def _before(
        self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        active = kwargs.pop("skill_active", None)  # [B, S], ours alone: the backbone does not know it
        cache = kwargs.get("past_key_values")
        self.context.balancing = model.training and self._steps % self.lime_config.balance_every == 0
        self._steps += model.training
        self.context.begin(kwargs.get("attention_mask"), int(cache.get_seq_length()) if cache is not None else 0, active)
        return args, kwargs

    def _after(self, model: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        task_loss = getattr(output, "loss", None)
        if model.training and isinstance(task_loss, torch.Tensor):
            balance = self.context.balance_loss(self.lime_config.balance)
            if balance is not None:
                output["loss"] = task_loss + balance.to(task_loss.dtype)
        return output
