"""The PEFT methods of linear modules that LiME wraps: their shared parameters and adapted representation d.

Routing, mixing and balance losses are those of layer.py. Sources: arXiv 2604.02338, section 3; DoRA: arXiv 2402.09353;
LoRA-FA: arXiv 2308.03303. SliceFine trains the first rows of a weight in place.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from lime_edge.contract.vector_kinds import Kind
from lime_edge.errors import ConfigError

from . import wrapped_module
from .config import LimeConfig
from .layer import LimeLayer, LowRank
from .registry import register_variant


@register_variant("lora")
class LimeLora(LimeLayer):
    """LiME-LoRA: d = s * Bm (A x). A starts Kaiming-uniform, Bm at zero."""

    shared_names: ClassVar[tuple[str, ...]] = ("lime_A", "lime_B")
    works_without_expert = True
    adapter_layer_names: tuple[str, ...] = (*LimeLayer.adapter_layer_names, *shared_names)
    lime_A: nn.ParameterDict  # noqa: N815
    lime_B: nn.ParameterDict  # noqa: N815

    def add_shared(self, adapter_name: str, config: LimeConfig) -> None:
        self.lime_A[adapter_name] = nn.Parameter(wrapped_module.starting_rows(self.get_base_layer(), config.r))
        self.lime_B[adapter_name] = nn.Parameter(torch.zeros(self.out_features, config.r))

    def low_rank(self) -> LowRank:
        return LowRank(self.lime_A[self.adapter], self.lime_B[self.adapter], self.scaling)


@register_variant("lora-fa")
class LimeLoraFa(LimeLora):
    """LiME-LoRA-FA: LiME-LoRA with a fixed A."""

    fixed_names = ("lime_A",)


@register_variant("dora")
class LimeDora(LimeLora):
    """LiME-DoRA: with g = m / row norms of (W + s Bm A), the module computes g * W x and d = g * s Bm (A x).

    m starts as the row norms of W. Routing and gain use W x, as without a skill: g * W x is W x with a standing gain of
    g - 1. Gradients also flow through the norms.
    """

    shared_names = (*LimeLora.shared_names, "lime_m")
    adapter_layer_names = (*LimeLora.adapter_layer_names, "lime_m")
    works_without_expert = False  # the magnitudes change the output even without p
    needs_exact_weights = True
    lime_m: nn.ParameterDict
    _magnitude: Tensor | None = None  # g, cached during a forward call

    def add_shared(self, adapter_name: str, config: LimeConfig) -> None:
        super().add_shared(adapter_name, config)
        with torch.no_grad():
            a, b = self.lime_A[adapter_name], self.lime_B[adapter_name]
            self.lime_m[adapter_name] = nn.Parameter(self._norms(a, b, config.scaling).clone())

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if not self.disable_adapters and self.adapter in self.lime_config:
            self._magnitude = self.magnitude()
        try:
            return super().forward(x, *args, **kwargs)
        finally:
            self._magnitude = None

    def magnitude(self) -> Tensor:
        """g [H], in float32."""
        if self._magnitude is not None:
            return self._magnitude
        a, b = self.lime_A[self.adapter], self.lime_B[self.adapter]
        magnitude: Tensor = self.lime_m[self.adapter] / self._norms(a, b, self.scaling)
        return magnitude

    def _norms(self, a: Tensor, b: Tensor, scaling: float) -> Tensor:
        """Row norms of W + s Bm A, [H], without building a second matrix of the size of W."""
        w = wrapped_module.weight(self.get_base_layer())
        a, b = a.to(w.device), scaling * b.to(w.device)
        squares = torch.linalg.vector_norm(w, dim=1, dtype=torch.float32).square()
        across = (b * (w @ a.T.to(w.dtype)).float()).sum(1)
        total: Tensor = squares + 2 * across + (b * (b @ (a @ a.T))).sum(1)
        return total.clamp_min(1e-12).sqrt()

    def low_rank(self) -> LowRank:
        return LowRank(self.lime_A[self.adapter], self.magnitude()[:, None] * self.lime_B[self.adapter], self.scaling)

    def standing(self) -> dict[Kind, Tensor]:
        gain = self.magnitude() - 1
        bias = wrapped_module.bias(self.get_base_layer())  # g does not scale the bias
        return {"gain": gain, "shift": torch.zeros_like(gain) if bias is None else -gain * bias}


@register_variant("slicefine")
class LimeSliceFine(LimeLayer):
    """LiME-SliceFine: the first r rows of W are trained and their outputs modulated; other outputs are unchanged.

    d holds the outputs of the trained rows, followed by zeros. A standing gain of -1 removes the first r outputs of W,
    so that d * mix replaces them. Routing reads d alone, which is y of the trained weight.
    """

    shared_names = ("lime_rows",)
    adapter_layer_names = (*LimeLayer.adapter_layer_names, *shared_names)
    lime_rows: nn.ParameterDict
    fixed_routing = {"gamma": 1.0}  # noqa: RUF012

    def add_shared(self, adapter_name: str, config: LimeConfig) -> None:
        if not config.routing.experts <= config.r <= self.out_features:
            raise ConfigError(
                f"SliceFine trains the first r outputs of a module and routes by the first E of them: r is {config.r}; "
                f"expected {config.routing.experts} (E) to {self.out_features}"
            )
        rows = wrapped_module.weight(self.get_base_layer())[: config.r]
        self.lime_rows[adapter_name] = nn.Parameter(rows.detach().float().clone())

    def low_rank(self) -> LowRank:
        rows = self.lime_rows[self.adapter]
        return LowRank(rows, torch.eye(self.out_features, len(rows), device=rows.device), 1.0)

    @property
    def scaling(self) -> float:
        return 1.0

    def standing(self) -> dict[Kind, Tensor]:
        rows = self.lime_rows[self.adapter]
        gain = -torch.eye(self.out_features, len(rows), device=rows.device).sum(1)
        bias = wrapped_module.bias(self.get_base_layer())
        return {"gain": gain, "shift": torch.zeros_like(gain) if bias is None else -gain * bias}
