"""TODO."""

from __future__ import annotations

from typing import Literal

Kind = Literal["expert", "gain", "shift", "rank", "prefix"]
KINDS: tuple[Kind, ...] = ("expert", "gain", "shift", "rank")  # that modulate a module
GAIN: tuple[Kind, ...] = ("gain",)  # all that some modules have
PREFIX: tuple[Kind, ...] = ("prefix",)  # what a model of prompt tuning takes instead
STORED: tuple[Kind, ...] = KINDS + PREFIX  # that a package may hold
#: A value that leaves the frozen output alone, per kind: what a skill without that kind means.
NEUTRAL: dict[Kind, float] = {"expert": 0.0, "gain": 0.0, "shift": 0.0, "rank": 1.0, "prefix": 0.0}
