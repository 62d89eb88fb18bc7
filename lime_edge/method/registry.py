"""The variants of LiME by name: variants register themselves here, and the configuration looks them up."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

V = TypeVar("V", bound=type[Any])

#: Subclasses of `LimeLayer` by the name that a configuration and ``lime-edge train --base`` use. Typed as Any, because
#: importing the layer here would be circular: the layer imports the configuration, which imports this module.
VARIANTS: dict[str, type[Any]] = {}


def register_variant(name: str) -> Callable[[V], V]:
    """A class decorator that registers a variant under `name`."""

    def add(variant: V) -> V:
        VARIANTS[name] = variant
        return variant

    return add
