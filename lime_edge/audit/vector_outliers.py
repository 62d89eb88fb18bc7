"""Finds vectors of a skill that are outliers among those of known skills of the same model.

Two figures for every vector: its root mean square (RMS), and its peak, the largest absolute value relative to the
RMS, which is high if a few channels carry all. Each is compared with the same vector of the known skills in robust
deviations: distance from the median, in units of 1.4826 times the median absolute deviation, but at least a tenth of
the median. With few known skills even an ordinary skill can be the most extreme one: below `ENOUGH` known skills a
deviation is reported but not judged.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from lime_edge.skills.package import Skill
from lime_edge.skills.vector_codec import kind_of, module_of

ENOUGH = 10  # least number of known skills at which a deviation is judged
_LEAST = 0.1  # smallest unit of deviation, as a share of the median
_NEUTRAL = 1e-6  # prevents division by zero
_LAYER = re.compile(r"\.(\d+)\.")

Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Cell:
    """One vector: its place in the model, its figures, and their deviations from known skills."""

    kind: str
    module: str
    rms: float
    peak: float  # largest |value| / rms
    rms_z: float | None  # robust deviations of `rms`; None without known skills
    peak_z: float | None  # the same for `peak`

    @property
    def layer(self) -> int:
        """The first number in the module's name; -1 if there is none."""
        found = _LAYER.search(self.module)
        return int(found[1]) if found else -1

    @property
    def projection(self) -> str:
        """The last part of the module's name, for example `up_proj`."""
        return self.module.rsplit(".", 1)[-1]

    @property
    def worst(self) -> float:
        """The larger absolute deviation of the two figures; 0 without known skills."""
        return max((abs(z) for z in (self.rms_z, self.peak_z) if z is not None), default=0.0)


def cells(skill: Skill, known: Sequence[Skill]) -> list[Cell]:
    """Compare every vector of a skill, in order of name.

    Args:
        skill: The skill under audit.
        known: Other skills of the same model; vectors that they lack are not compared.
    """
    figures = {name: _figures(array) for name, array in sorted(skill.tensors.items())}
    others = [{name: _figures(array) for name, array in one.tensors.items()} for one in known]
    return [_cell(name, found, [other[name] for other in others if name in other]) for name, found in figures.items()]


def robust_z(value: float, known: Sequence[float]) -> float | None:
    """Robust deviations of a value from known values; None if there are no known values."""
    if not len(known):
        return None
    middle = float(np.median(known))
    spread = 1.4826 * float(np.median(np.abs(np.asarray(known) - middle)))
    return (value - middle) / max(spread, _LEAST * abs(middle), _NEUTRAL)


def likeness(skill: Skill, known: Sequence[Skill]) -> dict[str, float]:
    """Cosine similarity of all of a skill's vectors, concatenated, to those of each known skill; by skill name."""
    return {one.name: _cosine(skill.tensors, one.tensors) for one in known}


def summary(skill: Skill, known: Sequence[Skill]) -> dict[str, Any]:
    """The `vectors` section of the report, as plain JSON values."""
    found = cells(skill, known)
    return {
        "known": [{"name": one.name, "digest": one.digest} for one in known],
        "enough": len(known) >= ENOUGH,
        "cells": [_plain(cell) for cell in found],
        "worst": [_plain(cell) for cell in sorted(found, key=lambda cell: -cell.worst)[:5]] if known else [],
        "likeness": {name: round(value, 3) for name, value in likeness(skill, known).items()},
    }


def _figures(array: npt.NDArray[Any]) -> tuple[float, float]:
    """RMS and peak of an array [E, width], over all experts."""
    values = np.asarray(array, np.float64)
    rms = float(np.sqrt(np.mean(values**2)))
    return rms, float(np.abs(values).max()) / (rms + _NEUTRAL)


def _cell(name: str, found: tuple[float, float], known: Sequence[tuple[float, float]]) -> Cell:
    rms, peak = found
    deviations = robust_z(rms, [one[0] for one in known]), robust_z(peak, [one[1] for one in known])
    return Cell(kind_of(name), module_of(name), rms, peak, *deviations)


def _plain(cell: Cell) -> dict[str, Any]:
    numbers = {"rms": cell.rms, "peak": cell.peak, "rms_z": cell.rms_z, "peak_z": cell.peak_z}
    rounded = {key: None if value is None else round(value, 4) for key, value in numbers.items()}
    return {"kind": cell.kind, "module": cell.module, "layer": cell.layer, "projection": cell.projection, **rounded}


def _cosine(first: Mapping[str, Any], second: Mapping[str, Any]) -> float:
    """Cosine over the names that both have; experts are averaged, as their number may differ."""
    names = sorted(first.keys() & second.keys())
    a, b = (np.concatenate([np.mean(one[name], 0) for name in names] or [np.zeros(1)]) for one in (first, second))
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b) + _NEUTRAL))
