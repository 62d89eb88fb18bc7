"""The kinds of vectors in a skill, and the neutral value of each. Maths: LiME (arXiv 2604.02338)."""

from __future__ import annotations

from typing import Literal

Kind = Literal["expert", "gain", "shift", "rank", "prefix"]
KINDS: tuple[Kind, ...] = ("expert", "gain", "shift", "rank")  # kinds that modulate a module
GAIN: tuple[Kind, ...] = ("gain",)  # the only kind of some modules
PREFIX: tuple[Kind, ...] = ("prefix",)  # the only kind in prompt tuning
STORED: tuple[Kind, ...] = KINDS + PREFIX  # kinds that a package may contain
#: The value of each kind that leaves the frozen output unchanged; a skill without that kind has this value.
NEUTRAL: dict[Kind, float] = {"expert": 0.0, "gain": 0.0, "shift": 0.0, "rank": 1.0, "prefix": 0.0}
