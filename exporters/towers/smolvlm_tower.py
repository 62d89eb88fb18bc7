"""SmolVLM, SmolVLM2 and Idefics3: full tiles in rows and columns, then the whole picture; pixels are shuffled."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from lime_edge.contract.vision import Marks, Tiles, Video, VisionContract
from lime_edge.errors import ExportError

from .settings import Settings
from .tower_family import Probe, TowerFamily, random_tiles

_MARKS = Marks("<fake_token_around_image>", "<row_{row}_col_{column}>", "<global-img>")


def contract(settings: Settings) -> VisionContract:
    """The whole picture as one tile, after the tiles of an enlarged picture if it takes no more than wanted."""
    config, image = settings.config, settings.image
    tower, side = config.vision_config, image.max_image_size["longest_edge"]
    if side != tower.image_size or not image.size.longest_edge:
        raise ExportError(f"tiles of {side} pixels of {image.size}; expected the tower's {tower.image_size}")
    rows = min(math.isqrt(max(settings.tiles - 1, 0)), math.ceil(image.size.longest_edge / side))
    longest = min(image.size.longest_edge, rows * side) if image.do_image_splitting and rows > 1 else 0
    return VisionContract(
        family="smolvlm",
        features=config.text_config.hidden_size,
        image_token=settings.token(config.image_token_id),
        image_token_id=config.image_token_id,
        pixels=settings.pixels(),
        tiles=Tiles(
            height=side,
            width=side,
            patch=tower.patch_size,
            tokens=(side // tower.patch_size // config.scale_factor) ** 2,
            limit=rows**2 + 1 if longest else 1,
            longest_edge=longest,
        ),
        marks=_MARKS,
        video=_video(settings, side),
    )


def _video(settings: Settings, side: int) -> Video | None:
    """How frames are taken, where the checkpoint says so; Idefics3 takes no videos."""
    sampling = settings.video.get("video_sampling") or getattr(settings.image, "video_sampling", None)
    if settings.config.model_type != "smolvlm" or not sampling:
        return None
    edge = int(sampling.get("video_size", {}).get("longest_edge", side))
    return Video(min(settings.frames, int(sampling["max_frames"])), float(sampling["fps"]), longest_edge=edge)


class Tower(torch.nn.Module):
    """[tiles, 3, h, w] -> [tiles, tokens, H]. Every patch of a tile is real, so that their positions are constant."""

    positions: Tensor

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model.model
        self.register_buffer("positions", _positions(self.model.vision_model))

    def forward(self, pixel_values: Tensor) -> Tensor:
        tower = self.model.vision_model
        patches = tower.embeddings.patch_embedding(pixel_values).flatten(2).transpose(1, 2)
        embedded = patches + tower.embeddings.position_embedding(self.positions)
        hidden = tower.encoder(inputs_embeds=embedded, attention_mask=None).last_hidden_state
        out: Tensor = self.model.connector(tower.post_layernorm(hidden))
        return out


def _positions(tower: Any) -> Tensor:
    """The rows of the position embedding that a full tile takes, [1, patches], as the model itself computes them."""
    asked: list[Tensor] = []
    embedding = tower.embeddings.position_embedding
    handle = embedding.register_forward_pre_hook(lambda _, args: asked.append(args[0].clone()))
    side = tower.config.image_size
    try:
        with torch.no_grad():
            tower(torch.zeros(1, 3, side, side, dtype=tower.dtype))
    finally:
        handle.remove()
    return asked[0]


def probe(_: Any, contract: VisionContract) -> Probe:
    """One picture of two tiles."""
    tiles = random_tiles(contract, 2)
    return Probe({"pixel_values": tiles}, {"pixel_values": torch.from_numpy(tiles)[None]})


FAMILY = TowerFamily(("SmolVLMImageProcessor", "Idefics3ImageProcessor"), contract, Tower, probe)
