"""The numbers of a skill against those of known skills: how large they are, and where they stand out.

One figure for every vector: its root mean square, and its largest value against that (a few channels that carry all).
Each is held against the same vector of the known skills, in robust deviations: from their median, in units of 1.4826
times the median absolute deviation, but never less than a tenth of the median. With n known skills the outermost of
n + 1 alike skills is nobody's outlier: below `ENOUGH` a deviation only says where to look. Knows nothing of models.
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

ENOUGH = 10  # known skills from which a deviation means something
_LEAST = 0.1  # of the median: the smallest deviation that counts as one
_NEUTRAL = 1e-6  # added to what is divided by
_LAYER = re.compile(r"\.(\d+)\.")

Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Cell:
    """One vector: of which kind, layer and projection, and how far it is from the known ones."""

    kind: str
    module: str
    rms: float
    peak: float  # largest |value| / rms
    rms_z: float | None  # None without known skills
    peak_z: float | None

    @property
    def layer(self) -> int:
        """The first number in the module's name; -1 without one."""
        found = _LAYER.search(self.module)
        return int(found[1]) if found else -1

    @property
    def projection(self) -> str:
        return self.module.rsplit(".", 1)[-1]

    @property
    def worst(self) -> float:
        return max((abs(z) for z in (self.rms_z, self.peak_z) if z is not None), default=0.0)


def cells(skill: Skill, known: Sequence[Skill]) -> list[Cell]:
    """Every vector of a skill, in the order of its names.

    Args:
        skill: The one that is looked at.
        known: Others of the same model; what they lack is not compared.
    """
    figures = {name: _figures(array) for name, array in sorted(skill.tensors.items())}
    others = [{name: _figures(array) for name, array in one.tensors.items()} for one in known]
    return [_cell(name, found, [other[name] for other in others if name in other]) for name, found in figures.items()]


def robust_z(value: float, known: Sequence[float]) -> float | None:
    """Robust deviations of a value from known ones; None where there are none."""
    if not len(known):
        return None
    middle = float(np.median(known))
    spread = 1.4826 * float(np.median(np.abs(np.asarray(known) - middle)))
    return (value - middle) / max(spread, _LEAST * abs(middle), _NEUTRAL)


def likeness(skill: Skill, known: Sequence[Skill]) -> dict[str, float]:
    """Cosine between a skill's vectors, all in one, and those of each known skill, by name."""
    return {one.name: _cosine(skill.tensors, one.tensors) for one in known}


def summary(skill: Skill, known: Sequence[Skill]) -> dict[str, Any]:
    """What the report says of the vectors, as plain JSON values."""
    found = cells(skill, known)
    return {
        "known": [{"name": one.name, "digest": one.digest} for one in known],
        "enough": len(known) >= ENOUGH,
        "cells": [_plain(cell) for cell in found],
        "worst": [_plain(cell) for cell in sorted(found, key=lambda cell: -cell.worst)[:5]] if known else [],
        "likeness": {name: round(value, 3) for name, value in likeness(skill, known).items()},
    }


def _figures(array: npt.NDArray[Any]) -> tuple[float, float]:
    """Root mean square and peak of [E, width], over the experts."""
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
    """Over the names that both have, with experts averaged: their numbers may differ."""
    names = sorted(first.keys() & second.keys())
    a, b = (np.concatenate([np.mean(one[name], 0) for name in names] or [np.zeros(1)]) for one in (first, second))
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b) + _NEUTRAL))
