"""How callers name skills: validates a name, a blend or the base, and makes it immutable."""

from __future__ import annotations

import math
from collections.abc import Mapping
from numbers import Real
from typing import Any

from lime_edge.common.strict_json import show
from lime_edge.errors import ConfigError
from lime_edge.runtime.types import Active, SkillSpec

Spec = str | tuple[tuple[str, float], ...] | None  # an immutable SkillSpec


def frozen(spec: Any) -> Spec | Active:
    """A validated, immutable copy of a spec.

    Raises:
        ConfigError: Names every invalid name and weight.
    """
    if spec is None or isinstance(spec, str | Active):
        return spec
    if not isinstance(spec, Mapping) or not spec:
        raise ConfigError(f"skill is {show(spec)}; expected None, a name, or weights by name")
    faults = [
        f"weight of {show(name)} is {show(weight)}; expected a finite number"
        for name, weight in spec.items()
        if not math.isfinite(as_number(weight))
    ]
    faults += [f"{show(name)} is not a name" for name in spec if not isinstance(name, str)]
    if faults:
        raise ConfigError("the blend is invalid", faults)
    return tuple((name, float(weight)) for name, weight in spec.items())


def as_number(value: Any) -> float:
    """The number that a value is, of Python or any library; NaN if it is none, or is too large."""
    if isinstance(value, bool) or not isinstance(value, Real):
        return math.nan
    try:
        return float(value)
    except OverflowError:
        return math.nan


def thawed(spec: Spec) -> SkillSpec:
    """The spec as a caller writes it; a blend is a new dictionary."""
    return dict(spec) if isinstance(spec, tuple) else spec


def parts_of(spec: Spec) -> tuple[tuple[str, float], ...]:
    """Names and weights of a spec; none for the base."""
    if spec is None:
        return ()
    return ((spec, 1.0),) if isinstance(spec, str) else spec
