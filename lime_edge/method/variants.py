"""The PEFT methods that LiME wraps: what is shared, and what the adapted representation d is.

All of them share the routing, the mixing and the balance loss of `layer.py`. Source: arXiv 2604.02338, section 3;
DoRA: arXiv 2402.09353; LoRA-FA: arXiv 2308.03303; SliceFine: the first rows of a weight, trained in place.
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
    """LiME-LoRA: d = s * Bm (A x); A Kaiming-uniform, Bm zero at the start."""

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
    """LiME-LoRA-FA: LiME-LoRA whose A stays as it started."""

    fixed_names = ("lime_A",)


@register_variant("dora")
class LimeDora(LimeLora):
    """LiME-DoRA: with g = m / row norms of (W + s Bm A), the module computes g * W x and d = g * s Bm (A x).

    m starts as the row norms of W. Routing reads W x itself, as it is without a skill, and gain scales it; g * W x
    is W x with a standing gain of g - 1. Gradients go through the norms, too.
    """

    shared_names = (*LimeLora.shared_names, "lime_m")
    adapter_layer_names = (*LimeLora.adapter_layer_names, "lime_m")
    works_without_expert = False  # the magnitudes stand
    needs_exact_weights = True
    lime_m: nn.ParameterDict
    _held: Tensor | None = None  # g of the call under way

    def add_shared(self, adapter_name: str, config: LimeConfig) -> None:
        super().add_shared(adapter_name, config)
        with torch.no_grad():
            a, b = self.lime_A[adapter_name], self.lime_B[adapter_name]
            self.lime_m[adapter_name] = nn.Parameter(self._norms(a, b, config.scaling).clone())

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if not self.disable_adapters and self.adapter in self.lime_config:
            self._held = self.magnitude()
        try:
            return super().forward(x, *args, **kwargs)
        finally:
            self._held = None

    def magnitude(self) -> Tensor:
        """g [H]; in float32."""
        if self._held is not None:
            return self._held
        a, b = self.lime_A[self.adapter], self.lime_B[self.adapter]
        magnitude: Tensor = self.lime_m[self.adapter] / self._norms(a, b, self.scaling)
        return magnitude

    def _norms(self, a: Tensor, b: Tensor, scaling: float) -> Tensor:
        """Row norms of W + s Bm A, [H], from r products with W instead of a second matrix of its size."""
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
        bias = wrapped_module.bias(self.get_base_layer())  # is not scaled
        return {"gain": gain, "shift": torch.zeros_like(gain) if bias is None else -gain * bias}


@register_variant("slicefine")
class LimeSliceFine(LimeLayer):
    """LiME-SliceFine: the first r rows of W are trained and their outputs modulated; the others pass.

    d = the trained rows' outputs, and zero behind them; W's own first r outputs are taken off by a standing gain of
    -1, which leaves d * mix in their place. Routing reads d alone, which is y of the trained weight.
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
