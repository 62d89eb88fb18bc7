"""LLaVA-OneVision: SigLIP tiles of an enlarged picture, a learned newline after every row of features, and videos."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from lime_edge.contract.vision import Tiles, Video, VisionContract
from lime_edge.errors import ExportError

from .llava_tower import checked_tower, projected
from .settings import Settings
from .tower_family import Array, Probe, TowerFamily, random_tiles


def contract(settings: Settings) -> VisionContract:
    """The whole picture as one tile, and those enlarged pictures that take no more tiles than wanted."""
    config, image, side = settings.config, settings.image, checked_tower(settings.config).image_size
    if image.size.height != side or image.size.width != side or config.vision_feature_select_strategy != "full":
        raise ExportError(
            f"tiles are {image.size} with the features {config.vision_feature_select_strategy!r}; expected squares of "
            f"{side} pixels, the tower's size, and 'full'"
        )
    count = {(h, w): (h // side) * (w // side) + 1 for h, w in image.image_grid_pinpoints}
    grid = tuple(size for size, tiles in count.items() if tiles <= settings.tiles)
    patch = config.vision_config.patch_size
    return VisionContract(
        family="llava_onevision",
        features=config.text_config.hidden_size,
        image_token=settings.token(config.image_token_id),
        image_token_id=config.image_token_id,
        pixels=settings.pixels(),
        tiles=Tiles(
            height=side,
            width=side,
            patch=patch,
            tokens=(side // patch) ** 2,
            limit=max((count[size] for size in grid), default=1),
            square=True,
            grid=grid,
            grid_tiles=int(config.vision_aspect_ratio.removeprefix("anyres_max_")),
        ),
        video=Video(settings.frames),
        video_token=settings.token(config.video_token_id),
        video_token_id=config.video_token_id,
    )


class Tower(torch.nn.Module):
    """[tiles, 3, h, w] -> [tiles, tokens, H], and the newline [H]."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model.model

    def forward(self, pixel_values: Tensor) -> tuple[Tensor, Tensor]:
        return projected(self.model, pixel_values), self.model.image_newline.clone()


def probe(_: Any, contract: VisionContract) -> Probe:
    """Two pictures of one tile each, which is what transformers makes of several pictures."""
    assert contract.tiles is not None  # the family has tiles
    tiles, side = random_tiles(contract, 2), contract.tiles.height
    given = {
        "pixel_values": torch.from_numpy(tiles)[:, None],
        "image_sizes": torch.tensor([[side, side]] * 2),
        "batch_num_images": torch.tensor([2]),
    }
    return Probe({"pixel_values": tiles}, given)


def packed(outputs: dict[str, Array]) -> Array:
    """The features of every picture of one tile, each followed by the newline."""
    features, newline = outputs["features"], outputs["newline"]
    return np.concatenate([row for tile in features for row in (tile, newline[None])])


FAMILY = TowerFamily(
    ("LlavaOnevisionImageProcessor",), contract, Tower, probe, outputs=("features", "newline"), packed=packed
)
