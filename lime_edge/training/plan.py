"""Validated settings of one training run: length, batch size, learning rates, optimiser."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from lime_edge.contract.vector_kinds import KINDS
from lime_edge.errors import ConfigError

from .signal_adamw import SignalAdamW

_SCALED = (*KINDS, "shared", "gate")  # kinds of parameters that vector_scales may name
Optimizer = Literal["adamw", "signal"]
OPTIMIZERS: dict[Optimizer, Callable[..., torch.optim.Optimizer]] = {"adamw": torch.optim.AdamW, "signal": SignalAdamW}


@dataclass(frozen=True)
class TrainingPlan:
    """How long and how fast to train."""

    steps: int = 300  # optimiser steps
    minutes: float | None = None  # time limit; None: no limit
    batch: int = 12  # rows per step, of all processes together
    vector_rate: float = 1e-3  # learning rate of a skill's vectors and gates
    vector_scales: Mapping[str, float] = field(default_factory=dict)  # factor on vector_rate by kind; 1 if absent
    shared_rate: float = 4e-4  # learning rate of everything else
    weight_decay: float = 0.01  # of everything else; vectors and gates have none
    optimizer: Optimizer = "adamw"  # or "signal": AdamW that damps noisy gradients (signal_adamw.py)
    warmup: float = 0.05  # share of the steps; afterwards the rate falls linearly to 0
    seed: int = 0
    save_every: int = 100  # steps between checkpoints and evaluations
    gradient_checkpointing: bool = False

    def __post_init__(self) -> None:
        if faults := [*self._number_faults(), *self._other_faults()]:
            raise ConfigError("the training plan is not valid", faults)

    def _number_faults(self) -> Iterator[str]:
        whole = {"steps": 1, "batch": 1, "save_every": 1, "seed": 0}
        real = {"vector_rate": (0, 1e3), "shared_rate": (0, 1e3), "weight_decay": (0, 1e3), "warmup": (0, 1)}
        for name, least in whole.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not least <= value < 2**32:
                yield f"{name} is {value!r}; expected a whole number from {least}"
        for name, (low, high) in real.items():
            value = getattr(self, name)
            if not _number(value) or not low <= value <= high:
                yield f"{name} is {value!r}; expected a number from {low} to {high:g}"
        for kind, scale in self.vector_scales.items():
            if kind not in _SCALED:
                yield f"vector_scales has {kind!r}; expected {', '.join(_SCALED)}"
            if not _number(scale) or not 0 <= scale <= 1e3:
                yield f"vector_scales of {kind} is {scale!r}; expected a number from 0 to 1000"

    def _other_faults(self) -> Iterator[str]:
        if self.minutes is not None and not (_number(self.minutes) and self.minutes > 0):
            yield f"minutes is {self.minutes!r}; expected a number above 0, or None"
        if self.optimizer not in tuple(OPTIMIZERS):
            yield f"optimizer is {self.optimizer!r}; expected one of {', '.join(OPTIMIZERS)}"


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
