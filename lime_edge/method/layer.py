"""The LiME layer: a frozen module, the ONE shared adapter, and a skill's vectors that modulate it.

`LimeLayer` routes, mixes and keeps the skill's vectors; a base from the paper's list is a subclass
(`bases.py`) that says what the adapted representation is and which parameters are shared.
Knows nothing of models, files or training loops. Source: arXiv 2604.02338, sections 3 and 4.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn
from torch.nn import functional as F

from lime_edge.contract.module_table import Module
from lime_edge.contract.vector_kinds import NEUTRAL, Kind
from lime_edge.errors import ConfigError

from . import wrapped_module
from .config import LimeConfig
from .forward_state import ForwardState
from .modulation import experts, film
from .routing import evidence, expert_use, select, window_mean, with_flag

_SPREAD = 0.1  # expert vectors start uniform in [1 - spread, 1 + spread]


class LowRank(NamedTuple):
    """A shared adapter, whatever its base: d = scale * b @ (a @ x)."""

    a: Tensor  # [r, D]
    b: Tensor  # [H, r]
    scale: float


class LimeLayer(nn.Module, BaseTunerLayer):
    """Shared routing, mixing and vectors of every base.

    A subclass names its parameters in `shared_names` (and repeats them in `adapter_layer_names`, for PEFT), creates
    them in `add_shared`, and says in `low_rank` what they make of an input, here and in a graph. What it changes in
    every token's output whatever the expert, it says in `standing`.

    Args:
        base_layer: The frozen module, [..., D] -> [..., H].
        adapter_name: PEFT's name of the adapter.
        config: Of the checkpoint.
        context: What the layers of one model share about the call under way.
    """

    shared_names: ClassVar[tuple[str, ...]] = ()  # parameters of the shared adapter, "lime_A"
    fixed_names: ClassVar[tuple[str, ...]] = ()  # those of them that stay as they start
    fixed_routing: ClassVar[dict[str, Any]] = {}  # routing constants that the base leaves no choice of
    targets: ClassVar[tuple[str, ...]] = ()  # the only modules that the base goes on
    works_without_expert: ClassVar[bool] = False  # whether a module without expert vectors is what it was
    needs_exact_weights: ClassVar[bool] = False  # whether `low_rank` computes with W, which must then be exact
    vector_names: ClassVar[tuple[str, ...]] = ("lime_expert", "lime_gain", "lime_shift", "lime_rank")
    adapter_layer_names: tuple[str, ...] = (*vector_names, "lime_shared", "lime_gate")
    other_param_names = ("lime_config",)
    lime_expert: nn.ParameterDict
    lime_gain: nn.ParameterDict
    lime_shift: nn.ParameterDict
    lime_rank: nn.ParameterDict
    lime_shared: nn.ParameterDict
    lime_gate: nn.ParameterDict

    def __init__(self, base_layer: nn.Module, adapter_name: str, config: LimeConfig, context: ForwardState) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.context = context
        self.lime_config: dict[str, LimeConfig] = {}
        self.frozen_peft_weight_names: dict[str, tuple[str, ...]] = {}
        self.in_features, self.out_features = wrapped_module.features(self.get_base_layer())
        for name in self.adapter_layer_names:
            setattr(self, name, nn.ParameterDict())
        self._active_adapter = adapter_name
        self.update_layer(adapter_name, config)

    def update_layer(self, adapter_name: str, config: LimeConfig, inference_mode: bool = False) -> None:
        """Add an adapter with fresh parameters.

        Raises:
            ConfigError: The module has too few outputs for it.
        """
        experts = config.routing.experts
        if self.out_features < experts:
            raise ConfigError(f"{experts} experts are routed by as many outputs; a module has {self.out_features}")
        self.lime_config[adapter_name] = config
        self.frozen_peft_weight_names[adapter_name] = self.fixed_names
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

    def shared(self) -> dict[str, nn.Parameter]:
        """The active adapter's shared parameters by their names in the definition, "A"."""
        return {name.removeprefix("lime_"): getattr(self, name)[self.adapter] for name in self.shared_names}

    @property
    def scaling(self) -> float:
        """s of the active adapter."""
        return self.lime_config[self.adapter].scaling

    @abstractmethod
    def add_shared(self, adapter_name: str, config: LimeConfig) -> None:
        """Create the shared adapter's parameters, listed in `shared_names`."""

    @abstractmethod
    def low_rank(self) -> LowRank:
        """The active shared adapter, which gradients go through."""

    def routed_by(self) -> slice | Tensor:
        """Which E of the outputs are the routing evidence: the first."""
        return slice(self.lime_config[self.adapter].routing.experts)

    def vectors(self) -> dict[Kind, Tensor]:
        """The active skill as a package holds it, [E, width] by kind: the shared vector and what stands are in it.

        The weights w of a token sum to 1, so what is added to every expert is added once to the output.
        """
        name, config = self.adapter, self.lime_config[self.adapter]
        found: dict[Kind, Tensor] = {kind: getattr(self, f"lime_{kind}")[name].float() for kind in config.kinds}
        if name in self.lime_shared:
            found["expert"] = found["expert"] + self.lime_gate[name] * self.lime_shared[name]
        for kind, standing in self.standing().items():
            found[kind] = found.get(kind, standing.new_zeros(config.routing.experts, 1)) + standing
        return found

    def set_vectors(self, given: Mapping[Kind, Tensor]) -> None:
        """Make a skill the active one; shapes must be the layer's own, and kinds that it lacks become neutral."""
        name, standing = self.adapter, self.standing()
        if name in self.lime_gate:
            self.lime_gate[name].zero_()
        for kind in self.lime_config[name].kinds:
            own = self.get_parameter(f"lime_{kind}.{name}")
            values = given[kind].to(own.device) if kind in given else torch.full_like(own, NEUTRAL[kind])
            own.copy_(values - standing[kind] if kind in standing else values)

    def standing(self) -> dict[Kind, Tensor]:
        """What the base adds to the gain and the shift of every expert, [H] each; nothing for most.

        A skill's package carries it, so that without a skill the backbone is bare (docs/decisions).
        """
        return {}

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """[B, S, D] -> [B, S, H]; a skill applies only where the context says that it is active."""
        y: Tensor = self.base_layer(x, *args, **kwargs)
        if self.disable_adapters or self.adapter not in self.lime_config:
            return y
        a, b, scale = self.low_rank()
        low, matrix = wrapped_module.product(self.get_base_layer(), x, a), scale * b
        some = self.routed_by()
        weights = self.route(y[..., some], F.linear(low, matrix[some].to(low.dtype)))
        if self.adapter in self.lime_rank:
            low = low * self.mix("rank", weights, low)
        return self.stand(self.modulate(y, low, matrix, weights), y)

    def route(self, y: Tensor, d: Tensor) -> Tensor:
        """Expert weights [B, S, E] of this call, from E components of y and of d; leaves their use in the context."""
        config, context = self.lime_config[self.adapter], self.context
        routing = config.routing
        if routing.experts == 1:
            return y.new_ones(1, 1, 1)
        logits = evidence(y, d, routing, config.routing_scale)
        real = self.real_for(logits)
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

    def real_for(self, logits: Tensor) -> Tensor | None:
        """[B, S], False where a token is padding; None if all are real."""
        return self.context.real_for(logits)

    def mix(self, kind: Kind, weights: Tensor, like: Tensor) -> Tensor:
        """Mixed vector of every token, [B, S, width]."""
        vectors: Tensor = getattr(self, f"lime_{kind}")[self.adapter]
        return weights @ vectors.to(like.dtype)

    def modulate(self, y: Tensor, low: Tensor, matrix: Tensor, weights: Tensor) -> Tensor:
        """out = y + d * (w @ p + c * p_shared) + y * (w @ u) + w @ b, with d = low @ matrix.T, where a skill is active.

        Every term is linear in w, whose rows sum to 1: the shared vector goes into p, and a token without
        the skill has weights of 0.
        """
        active = self.active_for(y)
        w = weights if active is None else weights * active
        gain, shift = (self.held(kind) for kind in ("gain", "shift"))
        out = film(y, w, *(None if one is None else one.to(y.dtype) for one in (gain, shift)))
        expert = self.held("expert")
        if self.adapter in self.lime_shared:
            shared = self.lime_gate[self.adapter] * self.lime_shared[self.adapter]
            expert = shared.expand(weights.shape[-1], -1) if expert is None else expert + shared
        return out if expert is None else experts(out, low, matrix, w, expert)

    def held(self, kind: Kind) -> Tensor | None:
        """The active skill's vectors of a kind, [E, width], if it has any."""
        found: Tensor | None = getattr(self, f"lime_{kind}").get(self.adapter)
        return found

    def active_for(self, y: Tensor) -> Tensor | None:
        """[B, S, 1], where the skill applies; None means everywhere."""
        return self.context.active_for(y)

    def stand(self, out: Tensor, y: Tensor) -> Tensor:
        """Add what stands, where the skill is active: out + y * gain + shift."""
        standing = {kind: vector.to(y.dtype) for kind, vector in self.standing().items()}
        if not standing:
            return out
        change = torch.addcmul(standing["shift"], y, standing["gain"])
        active = self.active_for(y)
        return out + (change if active is None else change * active)
