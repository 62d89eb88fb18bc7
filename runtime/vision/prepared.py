"""What a picture or a video becomes: inputs of the vision graph, and tokens of a prompt."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from lime_edge.contract.content_parts import MediaKind
from lime_edge.contract.names import VISION_FEATURES

Array = npt.NDArray[Any]
Outputs = Mapping[str, Array]  # of the vision graph, by name


def joined(outputs: Outputs) -> Array:
    """The features of all tiles, one after the other: [tiles, T, H] or [F, H] -> [F, H]."""
    features = outputs[VISION_FEATURES]
    return features.reshape(-1, features.shape[-1])


@dataclass(frozen=True)
class Prepared:
    """One picture or video.

    Attributes:
        arrays: Inputs of the vision graph by name.
        pieces: What stands in the prompt for its placeholder: texts, in which special tokens are special, and numbers
            of features.
        kind: ``"image"``, or ``"video"`` if its features have the model's video token.
        pack: Makes the features [F, H] of the prompt, in order, from the outputs of the vision graph.
        grid: Features in time, rows and columns, for positions in three dimensions; None: positions count up.
        interval: Positions from one step in time to the next.
    """

    arrays: Mapping[str, Array]
    pieces: tuple[str | int, ...]
    kind: MediaKind = "image"
    pack: Callable[[Outputs], Array] = field(default=joined, repr=False)
    grid: tuple[int, int, int] | None = None
    interval: float = 1.0

    @property
    def count(self) -> int:
        """F, the number of features."""
        return sum(piece for piece in self.pieces if isinstance(piece, int))


def stacked(tiles: list[Array]) -> Array:
    """Tiles [3, h, w] as one array [tiles, 3, h, w]."""
    return np.stack(tiles)
