"""`lime_vision`, the family of this project: one tile a picture, a convolutional tower, pooled features."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lime_edge.contract.vision import Pixels, Tiles, VisionContract

from .settings import Settings
from .tower_family import Probe, TowerFamily, random_tiles

_SIDE, _CELL, _TOKENS = 224, 32, 10  # pixels of a picture and of a cell of its features; features
_PIXELS = Pixels("bicubic", 1.0, (127.0, 127.0, 127.0), (128.0, 128.0, 128.0))  # those of the ImageNet weights


def contract(settings: Settings) -> VisionContract:
    """The whole picture, resized to one tile."""
    return VisionContract(
        family="lime_vision",
        features=settings.config.text_config.hidden_size,
        image_token=settings.token(settings.config.image_token_id),
        image_token_id=settings.config.image_token_id,
        pixels=_PIXELS,
        tiles=Tiles(_SIDE, _SIDE, _CELL, _TOKENS),
    )


class Tower(torch.nn.Module):
    """[tiles, 3, 224, 224] -> [tiles, 10, H]."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model.model

    def forward(self, pixel_values: Tensor) -> Tensor:
        out: Tensor = self.model.get_image_features(pixel_values).pooler_output
        return out


def probe(_: Any, contract: VisionContract) -> Probe:
    """Two pictures."""
    tiles = random_tiles(contract, 2)
    return Probe({"pixel_values": tiles}, {"pixel_values": torch.from_numpy(tiles)})


FAMILY = TowerFamily((), contract, Tower, probe)
