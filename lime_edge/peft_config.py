"""`LimeConfig`: what a LiME checkpoint is, as a PEFT configuration. Knows nothing of skills or files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from .contract import KINDS, Kind, Routing
from .errors import ConfigError
from .extras import need

with need("train"):
    from peft import PeftConfig

#: Projections of a decoder layer that the paper adapts.
ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")


@dataclass
class LimeConfig(PeftConfig):
    """One shared adapter per module, modulated by expert vectors (arXiv 2604.02338, sections 3 and 4).

    ``peft.get_peft_model(model, LimeConfig())`` wraps a model; every other PEFT call works from there.

    Raises:
        ConfigError: naming every value that is out of range.
    """

    target_modules: list[str] | str = field(default_factory=lambda: list(ATTENTION))  # names or a regex
    base: str = "lora"  # the PEFT method wrapped, a key of layer.BASES
    r: int = 8  # rank of the shared adapter
    alpha: float = 16.0  # LoRA scaling is alpha / r
    routing: Routing = field(default_factory=Routing)
    routing_scale: Literal["token", "batch"] = "token"  # "batch" reproduces the paper; it cannot be exported
    kinds: tuple[Kind, ...] = ("expert", "gain", "shift")  # vectors of each expert
    shared_vector: bool = False  # the paper's p_shared and its gate; folded into p in a skill
    jitter: float = 0.1  # routing noise while training, 0..1
    balance: tuple[float, float] = (0.1, 0.01)  # coefficients of the importance and KL losses
    balance_every: int = 1  # training steps between evaluations of the balance losses
    backbone_digest: str | None = None  # of the weights that it was trained on

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = "LIME"
        if isinstance(self.routing, Mapping):
            self.routing = Routing.from_dict(self.routing)
        if isinstance(self.target_modules, (set, tuple)):
            self.target_modules = sorted(self.target_modules)
        self.kinds = tuple(self.kinds)
        self.balance = (float(self.balance[0]), float(self.balance[1]))
        faults = [f"{name} is {value!r}; expected {wanted}" for name, value, wanted in self._faults()]
        if faults:
            raise ConfigError("this LimeConfig cannot be used", faults)

    def _faults(self) -> list[tuple[str, Any, str]]:
        checks = [
            ("r", self.r, "a whole number from 1", isinstance(self.r, int) and self.r >= 1),
            ("alpha", self.alpha, "a number above 0", self.alpha > 0),
            ("routing", self.routing, "a Routing", isinstance(self.routing, Routing)),
            ("routing_scale", self.routing_scale, "'token' or 'batch'", self.routing_scale in ("token", "batch")),
            (
                "kinds",
                self.kinds,
                f"some of {KINDS}, in that order",
                bool(self.kinds) and self.kinds == tuple(k for k in KINDS if k in self.kinds),
            ),
            ("jitter", self.jitter, "a number from 0 to 1", 0 <= self.jitter < 1),
            ("balance", self.balance, "two numbers, 0 or more", min(self.balance) >= 0),
            ("balance_every", self.balance_every, "a whole number from 1", self.balance_every >= 1),
        ]
        return [(name, value, wanted) for name, value, wanted, fine in checks if not fine]

    @property
    def scaling(self) -> float:
        """s = alpha / r."""
        return self.alpha / self.r


def _register() -> None:
    from peft import PeftType
    from peft.utils import register_peft_method

    from .model import LimeModel

    if "LIME" in PeftType.__members__:
        return
    # register_peft_method wants the name in PEFT's enumeration, which has no way to add one.
    member = str.__new__(PeftType, "LIME")
    member._name_ = member._value_ = "LIME"
    PeftType._member_map_["LIME"] = PeftType._value2member_map_["LIME"] = member
    PeftType._member_names_.append("LIME")
    register_peft_method(name="lime", config_cls=LimeConfig, model_cls=LimeModel)


_register()
