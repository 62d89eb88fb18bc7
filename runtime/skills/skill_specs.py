"""How callers name skills: validates a name, a blend or the base, and makes it immutable."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from numbers import Real
from typing import Any

from lime_edge.common.strict_json import show
from lime_edge.errors import ConfigError
from lime_edge.runtime.types import Active, SkillSpec

LARGEST = sys.float_info.max

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
        if isinstance(weight, bool) or not isinstance(weight, Real) or not abs(weight) <= LARGEST
    ]
    faults += [f"{show(name)} is not a name" for name in spec if not isinstance(name, str)]
    if faults:
        raise ConfigError("the blend is invalid", faults)
    return tuple((name, float(weight)) for name, weight in spec.items())


def thawed(spec: Spec) -> SkillSpec:
    """The spec as a caller writes it; a blend is a new dictionary."""
    return dict(spec) if isinstance(spec, tuple) else spec


def parts_of(spec: Spec) -> tuple[tuple[str, float], ...]:
    """Names and weights of a spec; none for the base."""
    if spec is None:
        return ()
    return ((spec, 1.0),) if isinstance(spec, str) else spec
