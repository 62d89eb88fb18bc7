"""`Routing`: the constants of LiME's router, with their ranges, as stored in checkpoints and lime.json."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

from lime_edge.errors import ConfigError

Mode = Literal["hard", "soft", "auto", "auto_soft"]
MODES: tuple[Mode, ...] = get_args(Mode)


@dataclass(frozen=True)
class Routing:
    """Constants of the zero-parameter router (LiME sections on routing, Auto Top-K and n-grams)."""

    experts: int = 4  # E, 1..64
    gamma: float = 0.7  # share of the adapter's output in the evidence, 0..1
    temperature: float = 0.5  # T of the softmax, > 0
    mode: Mode = "auto"  # how experts are selected
    top_k: int = 2  # k of hard and soft; "auto" keeps at most min(2k, E)
    theta: float = 0.5  # Auto Top-K keeps prob >= theta * max(prob), 0..1
    softness: float = 0.5  # t of the sigmoid in the soft modes, > 0
    window: int = 1  # n of the causal n-gram, 1..16

    def __post_init__(self) -> None:
        whole = {"experts": (1, 64), "top_k": (1, 64), "window": (1, 16)}
        real = {"gamma": (0, 1), "theta": (0, 1), "temperature": (1e-3, 1e3), "softness": (1e-3, 1e3)}
        faults = []
        for name, (low, high) in (whole | real).items():
            value = getattr(self, name)
            kind = int if name in whole else (int, float)
            if isinstance(value, bool) or not isinstance(value, kind) or not low <= value <= high:
                what = "a whole number" if name in whole else "a number"
                faults.append(f"{name} is {value!r}; expected {what} from {low} to {high}")
        if self.mode not in MODES:
            faults.append(f"mode is {self.mode!r}; expected one of {', '.join(MODES)}")
        if faults:
            raise ConfigError("the routing constants cannot be used", faults)

    @property
    def keep(self) -> int:
        """Most experts that a hard selection keeps: k, or min(2k, E) for Auto Top-K, and never more than E."""
        return min(2 * self.top_k if self.mode == "auto" else self.top_k, self.experts)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Routing:
        """Validate and convert an object of JSON.

        Raises:
            ConfigError: Lists every unknown, missing or invalid key.
        """
        if not isinstance(values, Mapping):
            raise ConfigError(f"the routing constants are {type(values).__name__}; expected an object")
        known = {f.name for f in fields(cls)}
        faults = [f"unknown key {key!r}" for key in sorted(set(values) - known, key=str)]
        faults += [f"missing key {key!r}" for key in sorted(known - set(values))]
        if faults:
            raise ConfigError("the routing constants cannot be used", faults)
        return cls(**values)
