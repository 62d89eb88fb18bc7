"""`LimeLayer`: a frozen module, the one shared adapter, and the vectors of a skill that modulate it.

`LimeLayer` routes tokens, mixes the experts and holds the skill's vectors. Each base of the paper is a subclass, in
variants.py or prompt_tuning.py, that defines the shared parameters and the adapted representation. Source: arXiv
2604.02338, sections 3 and 4.
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
    """The shared adapter of any base in its common form: d = scale * b @ (a @ x)."""

    a: Tensor  # [r, D]
    b: Tensor  # [H, r]
    scale: float


class LimeLayer(nn.Module, BaseTunerLayer):
    """Routing, mixing and vectors, common to every base.

    A subclass lists its parameters in `shared_names` (and in `adapter_layer_names`, for PEFT), creates them in
    `add_shared`, and returns them in `low_rank` as the matrices that this layer and an exported graph compute with.
    Changes to every token's output that do not depend on the expert go into `standing`.

    Args:
        base_layer: The frozen module, [..., D] -> [..., H].
        adapter_name: PEFT's name of the adapter.
        config: The configuration of the checkpoint.
        context: State of the forward call, shared by all layers of a model.
    """

    shared_names: ClassVar[tuple[str, ...]] = ()  # parameters of the shared adapter, like "lime_A"
    fixed_names: ClassVar[tuple[str, ...]] = ()  # shared parameters that are never trained
    fixed_routing: ClassVar[dict[str, Any]] = {}  # routing constants that the base prescribes
    targets: ClassVar[tuple[str, ...]] = ()  # the only modules that the base can adapt; empty means any
    works_without_expert: ClassVar[bool] = False  # whether a skill may leave out expert vectors
    needs_exact_weights: ClassVar[bool] = False  # whether `low_rank` reads W, which then must not be quantised
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
        """Add an adapter with newly initialised parameters.

        Raises:
            ConfigError: The module has fewer outputs than the adapter has experts.
        """
        experts = config.routing.experts
        if self.out_features < experts:
            raise ConfigError(f"{experts} experts need as many outputs to route by; a module has {self.out_features}")
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
        """Train only the vectors of the active adapter: its shared parameters no longer require gradients."""
        self.frozen_peft_weight_names[self.adapter] = self.shared_names
        self._freeze_non_trainable_peft_weights(self.adapter)

    def module(self, name: str) -> Module:
        """The entry of this layer in the module table, under its name in the backbone."""
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
        """The shared parameters of the active adapter, by their names in the paper, like "A"."""
        return {name.removeprefix("lime_"): getattr(self, name)[self.adapter] for name in self.shared_names}

    @property
    def scaling(self) -> float:
        """The factor s of the active adapter."""
        return self.lime_config[self.adapter].scaling

    @abstractmethod
    def add_shared(self, adapter_name: str, config: LimeConfig) -> None:
        """Create the shared adapter's parameters, listed in `shared_names`."""

    @abstractmethod
    def low_rank(self) -> LowRank:
        """The active shared adapter; gradients flow through it."""

    def routed_by(self) -> slice | Tensor:
        """The E outputs that are read as routing evidence: the first ones."""
        return slice(self.lime_config[self.adapter].routing.experts)

    def vectors(self) -> dict[Kind, Tensor]:
        """The active skill as stored in a package, [E, width] by kind, with shared vector and `standing` folded in.

        Folding is exact: the weights w of a token sum to 1, so that a vector added to every expert is added once to the
        output.
        """
        name, config = self.adapter, self.lime_config[self.adapter]
        folded: dict[Kind, Tensor] = {kind: getattr(self, f"lime_{kind}")[name].float() for kind in config.kinds}
        if name in self.lime_shared:
            folded["expert"] = folded["expert"] + self.lime_gate[name] * self.lime_shared[name]
        for kind, standing in self.standing().items():
            folded[kind] = folded.get(kind, standing.new_zeros(config.routing.experts, 1)) + standing
        return folded

    def set_vectors(self, given: Mapping[Kind, Tensor]) -> None:
        """Load a skill's vectors, which must have the shapes of this layer; missing kinds become neutral."""
        name, standing = self.adapter, self.standing()
        if name in self.lime_gate:
            self.lime_gate[name].zero_()
        for kind in self.lime_config[name].kinds:
            own = self.get_parameter(f"lime_{kind}.{name}")
            values = given[kind].to(own.device) if kind in given else torch.full_like(own, NEUTRAL[kind])
            own.copy_(values - standing[kind] if kind in standing else values)

    def standing(self) -> dict[Kind, Tensor]:
        """Constant gain and shift that the base adds to those of every expert, [H] each; empty for most bases.

        They are stored in the skill, so that without a skill the backbone is unchanged
        (docs/decisions/backbone-bare-for-every-base.md).
        """
        return {}

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """[B, S, D] -> [B, S, H]; the skill applies only to tokens that the context marks as active.

        Of an input [B, ..., D], the dimensions between the first and the last are tokens; a row without any has one.
        """
        if not isinstance(self.get_base_layer(), nn.Embedding) and x.dim() not in (1, 3):
            return self.forward(x.reshape(x.shape[0], -1, x.shape[-1]), *args, **kwargs).reshape(*x.shape[:-1], -1)
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
        """Expert weights [B, S, E] from E components of y and of d; records the expert use in the context."""
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
        """Mask [B, S], False on padding; None if every token is real."""
        return self.context.real_for(logits)

    def mix(self, kind: Kind, weights: Tensor, like: Tensor) -> Tensor:
        """The mixed vector of each token, w @ vectors, [B, S, width]."""
        vectors: Tensor = getattr(self, f"lime_{kind}")[self.adapter]
        return weights @ vectors.to(like.dtype)

    def modulate(self, y: Tensor, low: Tensor, matrix: Tensor, weights: Tensor) -> Tensor:
        """out = y + d * (w @ p + c * p_shared) + y * (w @ u) + w @ b, with d = low @ matrix.T, where a skill is active.

        Every term is linear in w, whose rows sum to 1. Therefore the shared vector is folded into p, and tokens without
        the skill get weights of 0.
        """
        active = self.active_for(y)
        w = weights if active is None else weights * active
        gain, shift = (self.held(kind) for kind in ("gain", "shift"))
        out = film(y, w, *(None if vector is None else vector.to(y.dtype) for vector in (gain, shift)))
        expert = self.held("expert")
        if self.adapter in self.lime_shared:
            shared = self.lime_gate[self.adapter] * self.lime_shared[self.adapter]
            expert = shared.expand(weights.shape[-1], -1) if expert is None else expert + shared
        return out if expert is None else experts(out, low, matrix, w, expert)

    def held(self, kind: Kind) -> Tensor | None:
        """The active skill's vectors of one kind, [E, width], or None."""
        vectors: Tensor | None = getattr(self, f"lime_{kind}").get(self.adapter)
        return vectors

    def active_for(self, y: Tensor) -> Tensor | None:
        """Where the skill applies, [B, S, 1]; None means everywhere."""
        return self.context.active_for(y)

    def stand(self, out: Tensor, y: Tensor) -> Tensor:
        """Add `standing` where the skill is active: out + y * gain + shift."""
        standing = {kind: vector.to(y.dtype) for kind, vector in self.standing().items()}
        if not standing:
            return out
        change = torch.addcmul(standing["shift"], y, standing["gain"])
        active = self.active_for(y)
        return out + (change if active is None else change * active)
