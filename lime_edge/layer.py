"""The LiME layer: a frozen projection, the ONE shared adapter, and a skill's vectors that modulate it.

`LimeLayer` routes, mixes and keeps the skill's vectors; a base from the paper's list is a subclass
that says what the adapted representation is (`compress`, `expand`) and which parameters are shared.
Knows nothing of models, files or training loops. Source: arXiv 2604.02338, sections 3 and 4.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn
from torch.nn import functional as F

from .context import Context
from .contract import NEUTRAL, Kind, Module
from .errors import ConfigError
from .routing import evidence, expert_use, select, window_mean, with_flag

if TYPE_CHECKING:
    from .peft_config import LimeConfig  # imports the model, which imports this

_SPREAD = 0.1  # expert vectors start uniform in [1 - spread, 1 + spread]


class LimeLayer(nn.Module, BaseTunerLayer):
    """Shared routing, mixing and vectors of every base.

    Args:
        base_layer: The frozen module, [..., D] -> [..., H].
        adapter_name: PEFT's name of the adapter.
        config: Of the checkpoint.
        context: What the layers of one model share about the call under way.
    """

    shared_names: ClassVar[tuple[str, ...]] = ()
    vector_names: ClassVar[tuple[str, ...]] = ("lime_expert", "lime_gain", "lime_shift", "lime_rank")
    adapter_layer_names = (*vector_names, "lime_shared", "lime_gate")
    other_param_names = ("lime_config",)
    lime_expert: nn.ParameterDict
    lime_gain: nn.ParameterDict
    lime_shift: nn.ParameterDict
    lime_rank: nn.ParameterDict
    lime_shared: nn.ParameterDict
    lime_gate: nn.ParameterDict

    def __init__(self, base_layer: nn.Module, adapter_name: str, config: LimeConfig, context: Context) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.context = context
        self.lime_config: dict[str, LimeConfig] = {}
        self.frozen_peft_weight_names: dict[str, tuple[str, ...]] = {}
        self.in_features, self.out_features = _features(self.get_base_layer(), config.routing.experts)
        for name in self.adapter_layer_names:
            setattr(self, name, nn.ParameterDict())
        self._active_adapter = adapter_name
        self.update_layer(adapter_name, config)

    def update_layer(self, adapter_name: str, config: LimeConfig, inference_mode: bool = False) -> None:
        """Add an adapter with fresh parameters."""
        self.lime_config[adapter_name] = config
        self.add_shared(adapter_name, config)
        for kind in config.kinds:
            getattr(self, f"lime_{kind}")[adapter_name] = nn.Parameter(self._fresh(kind, config))
        if config.shared_vector:
            self.lime_shared[adapter_name] = nn.Parameter(torch.randn(self.out_features) * 0.1)
            self.lime_gate[adapter_name] = nn.Parameter(torch.zeros(()))
        self._move_adapter_to_device_of_base_layer(adapter_name)
        self.set_adapter(self.active_adapters, inference_mode=inference_mode)

    def freeze_shared(self) -> None:
        """Train the active adapter's vectors alone: its shared parameters no longer require gradients."""
        self.frozen_peft_weight_names[self.adapter] = self.shared_names
        self._freeze_non_trainable_peft_weights(self.adapter)

    def module(self, name: str) -> Module:
        """This layer as a row of the module table, under its name in the backbone."""
        return Module(name, self.out_features, self.lime_config[self.adapter].r)

    def _fresh(self, kind: Kind, config: LimeConfig) -> Tensor:
        shape = Module("", self.out_features, config.r).shape(kind, config.routing.experts)
        if kind == "expert":
            return torch.empty(shape).uniform_(1 - _SPREAD, 1 + _SPREAD)
        return torch.full(shape, NEUTRAL[kind])

    @property
    def adapter(self) -> str:
        """The one active adapter."""
        if len(self.active_adapters) != 1:
            raise ConfigError(f"LiME runs one adapter at a time; {len(self.active_adapters)} are active")
        return str(self.active_adapters[0])

    @abstractmethod
    def add_shared(self, adapter_name: str, config: LimeConfig) -> None:
        """Create the shared adapter's parameters, listed in `shared_names`."""

    @abstractmethod
    def compress(self, x: Tensor) -> Tensor:
        """Input [..., D] to the inner representation that the rank gate scales, [..., r]."""

    @abstractmethod
    def expand(self, low: Tensor) -> Tensor:
        """Inner representation [..., r] to the adapted representation d, [..., H]."""

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """[B, S, D] -> [B, S, H]; a skill applies only where the context says that it is active."""
        y: Tensor = self.base_layer(x, *args, **kwargs)
        if self.disable_adapters or self.adapter not in self.lime_config:
            return y
        low = self.compress(x)
        d = self.expand(low)
        weights = self.route(y, d)
        if self.adapter in self.lime_rank:
            d = self.expand(low * self.mix("rank", weights, low))
        return self.modulate(y, d, weights)

    def route(self, y: Tensor, d: Tensor) -> Tensor:
        """Expert weights [B, S, E] of this call; leaves the use of experts in the context."""
        config, context = self.lime_config[self.adapter], self.context
        routing = config.routing
        if routing.experts == 1:
            return y.new_ones(1, 1, 1)
        logits = evidence(y, d, routing, config.routing_scale)
        real = context.real_for(logits)
        if routing.window > 1:
            past = context.past_of(self)
            context.remember(self, with_flag(logits, real), routing.window - 1)
            logits = window_mean(logits, routing.window, past, real)
        if self.training and config.jitter:
            logits = logits * torch.empty_like(logits).uniform_(1 - config.jitter, 1 + config.jitter)
        weights, prob = select(logits, routing)
        if self.training and context.balancing:
            context.uses[id(self)] = expert_use(prob, real)
        return weights.to(y.dtype)

    def mix(self, kind: Kind, weights: Tensor, like: Tensor) -> Tensor:
        """Mixed vector of every token, [B, S, width]."""
        vectors: Tensor = getattr(self, f"lime_{kind}")[self.adapter]
        return weights @ vectors.to(like.dtype)

    def modulate(self, y: Tensor, d: Tensor, weights: Tensor) -> Tensor:
        """out = y + d * (w @ p + c * p_shared) + y * (w @ u) + w @ b, where the skill is active."""
        name = self.adapter
        factor = self.mix("expert", weights, d) if name in self.lime_expert else torch.zeros_like(d)
        if name in self.lime_shared:
            factor = factor + (self.lime_gate[name] * self.lime_shared[name]).to(d.dtype)
        change = d * factor
        if name in self.lime_gain:
            change = torch.addcmul(change, y, self.mix("gain", weights, y))
        if name in self.lime_shift:
            change = change + self.mix("shift", weights, y)
        active = self.context.active_for(y)
        return y + (change if active is None else change * active)


class LimeLora(LimeLayer):
    """LiME-LoRA: d = s * Bm (A x); A Kaiming-uniform, Bm zero at the start."""

    shared_names = ("lime_A", "lime_B")
    adapter_layer_names = (*LimeLayer.adapter_layer_names, *shared_names)
    lime_A: nn.ParameterDict  # noqa: N815
    lime_B: nn.ParameterDict  # noqa: N815

    def add_shared(self, adapter_name: str, config: LimeConfig) -> None:
        a = torch.empty(config.r, self.in_features)
        nn.init.kaiming_uniform_(a, a=math.sqrt(5))
        self.lime_A[adapter_name] = nn.Parameter(a)
        self.lime_B[adapter_name] = nn.Parameter(torch.zeros(self.out_features, config.r))

    def compress(self, x: Tensor) -> Tensor:
        return F.linear(x, self.lime_A[self.adapter].to(x.dtype))

    def expand(self, low: Tensor) -> Tensor:
        scaling = self.lime_config[self.adapter].scaling
        return F.linear(low * scaling, self.lime_B[self.adapter].to(low.dtype))


BASES: dict[str, type[LimeLayer]] = {"lora": LimeLora}


def _features(layer: nn.Module, experts: int) -> tuple[int, int]:
    if not isinstance(layer, nn.Linear):
        raise ConfigError(f"LiME adapts torch.nn.Linear, not {type(layer).__name__}; name other target_modules")
    if layer.out_features < experts:
        raise ConfigError(f"{experts} experts are routed by as many outputs; a module has {layer.out_features}")
    return layer.in_features, layer.out_features
