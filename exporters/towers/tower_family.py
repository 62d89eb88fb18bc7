"""What a family of vision-language models has to say for itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from lime_edge.contract.vision import VisionContract

from .settings import Settings

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Probe:
    """One random picture for the comparison with transformers.

    Attributes:
        arrays: Inputs of vision.onnx.
        given: The same picture for `get_image_features` and the forward pass of the transformers model.
    """

    arrays: dict[str, Array]
    given: dict[str, Any]


def every_feature(outputs: dict[str, Array]) -> Array:
    """The features [F, H] of a picture in the order of its tokens, from the outputs of vision.onnx."""
    features = outputs["features"]
    return features.reshape(-1, features.shape[-1])


@dataclass(frozen=True)
class TowerFamily:
    """How one family is exported.

    Attributes:
        processors: Image processors that it is exported with, the default one first; none if it has a fixed one.
        contract: Makes the `VisionContract`.
        tower: Makes the module that vision.onnx computes; its forward takes the inputs in the order of `inputs`.
        inputs: Names of the inputs of vision.onnx.
        probe: Makes a `Probe` for a model.
        packed: Features in the order of a picture's tokens, from the outputs of vision.onnx.
        outputs: Names of the outputs of vision.onnx.
        divisor: The first dimension of every input is a multiple of it.
    """

    processors: tuple[str, ...]
    contract: Callable[[Settings], VisionContract]
    tower: Callable[[Any], torch.nn.Module]
    probe: Callable[[Any, VisionContract], Probe]
    inputs: tuple[str, ...] = ("pixel_values",)
    outputs: tuple[str, ...] = ("features",)
    packed: Callable[[dict[str, Array]], Array] = every_feature
    divisor: int = 1


def random_tiles(contract: VisionContract, count: int) -> Array:
    """Tiles of noise, [count, 3, height, width]."""
    assert contract.tiles is not None  # of a family in tiles
    rng = np.random.default_rng(0)
    return rng.standard_normal((count, 3, contract.tiles.height, contract.tiles.width), np.float32)
