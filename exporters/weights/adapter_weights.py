"""A trained shared adapter as plain arrays, without torch, and the faults that make it impossible to export."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lime_edge.contract.module_table import ALIGNMENT, Module
from lime_edge.contract.routing import Routing
from lime_edge.contract.vector_kinds import KINDS, PREFIX, Kind


@dataclass(frozen=True)
class AdaptedModule:
    """The shared adapter of one linear module: d = scale * b @ (a @ x)."""

    name: str  # as in the Hugging Face model, "model.layers.0.self_attn.q_proj"
    a: npt.NDArray[np.float32]  # [r, D]
    b: npt.NDArray[np.float32]  # [H, r]
    scale: float  # alpha / r

    @property
    def in_features(self) -> int:
        return int(self.a.shape[1])

    @property
    def out_features(self) -> int:
        return int(self.b.shape[0])

    @property
    def rank(self) -> int:
        return int(self.a.shape[0])

    def faults(self) -> Iterator[str]:
        """Everything that is wrong with these arrays alone."""
        if self.a.ndim != 2 or self.b.ndim != 2 or self.a.shape[0] != self.b.shape[1] or 0 in self.a.shape:
            yield f"{self.name}: A is {self.a.shape} and B is {self.b.shape}; expected [r, D] and [H, r]"
        if not (np.isfinite(self.a).all() and np.isfinite(self.b).all() and np.isfinite(self.scale)):
            yield f"{self.name}: the shared adapter contains numbers that are not finite; train again"


@dataclass(frozen=True)
class AdapterWeights:
    """A trained shared adapter and the settings that it was trained with."""

    modules: tuple[AdaptedModule, ...]  # in any order
    routing: Routing
    kinds: tuple[Kind, ...] = ("expert", "gain", "shift")
    routing_scale: str = "token"  # "batch" only exists for comparison with published results
    backbone_name: str = ""
    backbone_revision: str = ""
    backbone_digest: str = ""
    adapter_digest: str = ""
    gain_only: tuple[str, ...] = ()  # gain-only projections, by the last part of the module's name
    prefix: Module | None = None  # for prompt tuning, which adapts no projection: embedding, H, virtual tokens

    def faults(self) -> Iterator[str]:
        """Every reason why this adapter cannot be exported, with any backbone."""
        if self.routing_scale != "token":
            yield (
                f"routing scale is {self.routing_scale!r}: one maximum over the batch makes a token's routing depend "
                "on other requests and on later tokens, which a cached decode step cannot see; train with 'token'"
            )
        if self.prefix is not None:
            yield from self._prefix_faults(self.prefix)
            return
        if not self.modules:
            yield "no module is adapted"
        yield from self._kind_faults()
        for name, count in Counter(module.name for module in self.modules).items():
            if count > 1:
                yield f"{name} is adapted {count} times"
        for module in self.modules:
            yield from module.faults()
            if module.b.ndim == 2 and module.out_features < self.routing.experts:
                yield f"{module.name}: {module.out_features} outputs are fewer than {self.routing.experts} experts"

    def _kind_faults(self) -> Iterator[str]:
        if self.kinds != tuple(kind for kind in KINDS if kind in self.kinds):
            yield f"kinds are {', '.join(self.kinds)}; expected some of {', '.join(KINDS)}, in that order"
        if not set(self.kinds) - {"rank"}:
            yield "kinds need at least one of expert, gain, shift: a rank gate alone changes nothing"
        if self.gain_only and "gain" not in self.kinds:
            yield f"{', '.join(self.gain_only)} cannot be gain-only: the kinds do not include gain"
        adapted = {module.name.rpartition(".")[2] for module in self.modules}
        if unknown := [name for name in self.gain_only if name not in adapted]:
            yield f"{', '.join(unknown)} cannot be gain-only: adapted are {', '.join(sorted(adapted))}"

    def _prefix_faults(self, prefix: Module) -> Iterator[str]:
        if self.gain_only:
            yield f"{', '.join(self.gain_only)} cannot be gain-only: a soft prefix adapts no projection"
        if self.modules or self.kinds != PREFIX or self.routing.experts != 1 or self.routing.window != 1:
            yield "a soft prefix allows no adapted modules and no other kinds; expected one expert and a window of 1"
        if prefix.out_features % ALIGNMENT:
            yield f"{prefix.name}: the width is {prefix.out_features}; expected a multiple of {ALIGNMENT}"
