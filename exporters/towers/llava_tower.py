"""LLaVA: one tile a picture, CLIP or SigLIP, and a projector of two layers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lime_edge.contract.vision import Tiles, VisionContract
from lime_edge.errors import ExportError

from .settings import Settings
from .tower_family import Probe, TowerFamily, random_tiles

TOWERS = {"clip_vision_model": 1, "siglip_vision_model": 0}  # tokens before the patches


def contract(settings: Settings) -> VisionContract:
    """One tile of the tower's size: cropped from the middle, or the whole picture resized to it."""
    config, image = settings.config, settings.image
    tower = checked_tower(config)
    shortest, crops = image.size.shortest_edge, bool(getattr(image, "do_center_crop", False))
    side = image.crop_size.height if crops else image.size.height
    wanted = {side, image.crop_size.width if crops else image.size.width}
    if wanted != {tower.image_size} or crops != bool(shortest):
        crop = image.crop_size if crops else "no crop"
        raise ExportError(
            f"pictures become {image.size}, {crop}; expected the tower's {tower.image_size} pixels a side"
        )
    patches = (tower.image_size // tower.patch_size) ** 2
    extra = TOWERS[tower.model_type] - (config.vision_feature_select_strategy == "default")
    return VisionContract(
        family="llava",
        features=config.text_config.hidden_size,
        image_token=settings.token(config.image_token_id),
        image_token_id=config.image_token_id,
        pixels=settings.pixels(),
        tiles=Tiles(
            height=tower.image_size,
            width=tower.image_size,
            patch=tower.patch_size,
            tokens=patches + extra,
            shortest_edge=shortest or 0,
            square=bool(getattr(image, "do_pad", False)),
        ),
    )


def checked_tower(config: Any) -> Any:
    """The configuration of a tower that was tried.

    Raises:
        ExportError: Another kind of tower.
    """
    tower = config.vision_config
    if tower.model_type not in TOWERS:
        raise ExportError(f"the tower is a {tower.model_type}; expected one of {', '.join(TOWERS)}")
    return tower


def projected(model: Any, pixel_values: Tensor) -> Tensor:
    """Features of the chosen layers without the tokens before the patches, projected, [tiles, tokens, H]."""
    config = model.config
    layers = config.vision_feature_layer
    hidden = model.vision_tower(pixel_values, output_hidden_states=True, return_dict=True).hidden_states
    chosen = torch.cat([hidden[layer] for layer in ([layers] if isinstance(layers, int) else layers)], -1)
    out: Tensor = model.multi_modal_projector(
        chosen[:, 1:] if config.vision_feature_select_strategy == "default" else chosen
    )
    return out


class Tower(torch.nn.Module):
    """[tiles, 3, h, w] -> [tiles, tokens, H]."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model.model

    def forward(self, pixel_values: Tensor) -> Tensor:
        return projected(self.model, pixel_values)


def probe(_: Any, contract: VisionContract) -> Probe:
    """One tile."""
    tiles = random_tiles(contract, 1)
    return Probe({"pixel_values": tiles}, {"pixel_values": torch.from_numpy(tiles)})


FAMILY = TowerFamily(("CLIPImageProcessor", "SiglipImageProcessor", "LlavaImageProcessor"), contract, Tower, probe)
