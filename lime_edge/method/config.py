"""`LimeConfig`: the PEFT configuration of a LiME checkpoint, stored in adapter_config.json."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal

from lime_edge.common.extras import require_extra
from lime_edge.contract.routing import Routing
from lime_edge.contract.vector_kinds import KINDS, Kind
from lime_edge.errors import ConfigError

from .registry import VARIANTS

with require_extra("train"):
    from peft import PeftConfig

#: Projections of a decoder layer that the paper adapts.
ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
#: Default targets: the most effect for the size of a skill (docs/log.md, 2026-11-26).
TARGETS = ("o_proj", "up_proj")


@dataclass
class LimeConfig(PeftConfig):
    """One shared adapter per module, modulated by expert vectors (arXiv 2604.02338, sections 3 and 4).

    ``peft.get_peft_model(model, LimeConfig())`` wraps a model; every other PEFT call then works on it.

    Raises:
        ConfigError: Lists every invalid value.
    """

    target_modules: list[str] | str = field(default_factory=lambda: list(TARGETS))  # names or a regex
    towers: list[str] = field(default_factory=list)  # parts outside the language model whose modules are adapted, too
    base: str = "lora"  # the wrapped PEFT method, a key of registry.VARIANTS
    r: int = 8  # rank of the shared adapter; SliceFine: trained rows; prompt tuning: virtual tokens
    alpha: float = 16.0  # LoRA scaling is alpha / r
    routing: Routing = field(default_factory=Routing)
    routing_scale: Literal["token", "batch"] = "token"  # "batch" reproduces the paper; it cannot be exported
    kinds: tuple[Kind, ...] = ("expert", "gain", "shift")  # kinds of vectors of each expert
    shared_vector: bool = False  # the paper's p_shared and its gate; a skill has them folded into p
    jitter: float = 0.1  # routing noise in training, 0 <= jitter < 1
    balance: tuple[float, float] = (0.1, 0.01)  # coefficients of the importance and KL losses
    balance_every: int = 1  # training steps between evaluations of the balance losses
    backbone_digest: str | None = None  # digest of the backbone that the checkpoint was trained on

    def __post_init__(self) -> None:
        super().__post_init__()  # type: ignore[no-untyped-call]
        self.peft_type = "LIME"
        if isinstance(self.routing, Mapping):
            self.routing = Routing.from_dict(self.routing)
        targets: Any = self.target_modules
        if isinstance(targets, (set, tuple)):
            self.target_modules = sorted(targets)
        kinds: Any = self.kinds
        if isinstance(kinds, list):  # read from JSON
            self.kinds = tuple(kinds)
        faults = [f"{name} is {value!r}; expected {wanted}" for name, value, wanted in self._faults()]
        if faults:
            raise ConfigError("this LimeConfig cannot be used", faults)
        self.balance = (float(self.balance[0]), float(self.balance[1]))
        base = VARIANTS[self.base]
        self.routing = replace(self.routing, **base.fixed_routing)
        self.target_modules = list(base.targets) or self.target_modules

    @classmethod
    def check_kwargs(cls, **kwargs: Any) -> dict[str, Any]:
        """Reject unknown keys in adapter_config.json, which PEFT would drop with a warning. PEFT calls this.

        Raises:
            ConfigError: The file is for another PEFT method, or has unknown keys.
        """
        if kwargs.get("peft_type") != "LIME":
            raise ConfigError(f"adapter_config.json is for the PEFT method {kwargs.get('peft_type')}; expected LIME")
        known = {f.name for f in fields(cls)} | {"peft_version"}
        if faults := [f"unknown key {key!r}" for key in sorted(set(kwargs) - known)]:
            raise ConfigError("adapter_config.json cannot be used: it may come from a newer lime-edge", faults)
        return kwargs

    def _faults(self) -> list[tuple[str, Any, str]]:
        targets, kinds, balance = self.target_modules, self.kinds, self.balance
        named = isinstance(targets, (str, list)) and all(isinstance(name, str) and name for name in targets)
        ordered = isinstance(kinds, tuple) and kinds == tuple(kind for kind in KINDS if kind in kinds)
        pair = isinstance(balance, (tuple, list)) and len(balance) == 2 and all(_number(value, 0) for value in balance)
        towers: Any = self.towers
        parts = isinstance(towers, list) and all(isinstance(name, str) and name for name in towers)
        checks = [
            ("towers", towers, "a list of names of modules, like model.vision_tower", parts),
            ("target_modules", targets, "names of modules, or a regex", named and len(targets) > 0),
            ("base", self.base, f"one of {', '.join(VARIANTS)}", self.base in list(VARIANTS)),
            ("r", self.r, "a whole number from 1", _whole(self.r)),
            ("alpha", self.alpha, "a number above 0", _number(self.alpha, 0) and self.alpha > 0),
            ("routing", self.routing, "a Routing", isinstance(self.routing, Routing)),
            ("routing_scale", self.routing_scale, "'token' or 'batch'", self.routing_scale in ("token", "batch")),
            ("kinds", kinds, f"some of {', '.join(KINDS)}, in that order", ordered and len(kinds) > 0),
            ("jitter", self.jitter, "a number from 0, below 1", _number(self.jitter, 0) and self.jitter < 1),
            ("balance", balance, "two numbers, 0 or more", pair),
            ("balance_every", self.balance_every, "a whole number from 1", _whole(self.balance_every)),
        ]
        return [(name, value, wanted) for name, value, wanted, fine in checks if not fine]

    @property
    def scaling(self) -> float:
        """s = alpha / r."""
        return self.alpha / self.r


def _number(value: Any, least: float) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and least <= value < math.inf


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1
