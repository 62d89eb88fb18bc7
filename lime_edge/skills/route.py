"""The route of a skill: what its requests look like inside the model, for choosing a skill by the request.

Format: docs/skill-format.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypedDict, get_args

import numpy as np
import numpy.typing as npt

from lime_edge.common.strict_json import one_of, record, show, whole
from lime_edge.contract.route_settings import LAYER_LIMIT, Pooling

from .vector_codec import Array, Form

CENTROIDS = "route.centroids"  # the only tensor of a route
CENTROID_LIMIT = 4
WIDTH_LIMIT = 2**14  # D

#: The check of `route` in a manifest.
ROUTE = record({"layer": whole(0, LAYER_LIMIT), "pooling": one_of(*get_args(Pooling))})


class RouteMeta(TypedDict):
    """The part of a route that is in the manifest."""

    layer: int
    pooling: Pooling


@dataclass(frozen=True, eq=False)
class Route:
    """Centres of the pooled hidden states of a skill's requests.

    Attributes:
        layer: The layer whose output is pooled; 0 means the embeddings.
        pooling: Over the tokens of a request: their mean, or the last one.
        centroids: Float [k, D], k from 1 to 4.
    """

    layer: int
    pooling: Pooling
    centroids: npt.NDArray[np.floating[Any]]

    def meta(self) -> RouteMeta:
        return {"layer": self.layer, "pooling": self.pooling}

    def stored(self) -> dict[str, Array]:
        """The tensor of a package: F16 [k, D]; infinite where a number exceeds its range."""
        with np.errstate(over="ignore", under="ignore"):
            return {CENTROIDS: np.atleast_2d(np.asarray(self.centroids)).astype(np.float16)}


def route_form_faults(forms: Mapping[str, Form]) -> Iterator[str]:
    """Faults of the names, types and shapes of tensors ``route.*``."""
    for name, form in forms.items():
        if name != CENTROIDS:
            yield f"tensor {show(name)}: expected {CENTROIDS} as the only tensor route.*"
        elif form.dtype != np.float16 or form.shape[0] > CENTROID_LIMIT or form.shape[1] > WIDTH_LIMIT:
            expected = f"float16, at most [{CENTROID_LIMIT}, {WIDTH_LIMIT}]"
            yield f"tensor {name} is {form.dtype} {list(form.shape)}; expected {expected}"


def route_number_faults(centroids: Array) -> Iterator[str]:
    """Faults of the numbers of well-formed centroids."""
    if not np.isfinite(centroids).all():
        yield f"tensor {CENTROIDS} contains numbers that are not finite"
