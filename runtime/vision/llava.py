"""Pictures of one tile: LLaVA, and `lime_vision`."""

from __future__ import annotations

from lime_edge.contract.names import PIXEL_VALUES
from lime_edge.contract.vision import Pixels as PixelSettings
from lime_edge.contract.vision import Tiles, VisionContract

from .image_file import Pixels
from .pixels import centre, normalised, padded_square, resized, shortest_edge
from .prepared import Prepared


def one_tile(pixels: Pixels, tiles: Tiles, settings: PixelSettings) -> Pixels:
    """A picture as one tile [h, w, 3]: squared, resized and cropped as the contract says."""
    if tiles.square:
        pixels = padded_square(pixels, settings)
    if not tiles.shortest_edge:
        return resized(pixels, tiles.height, tiles.width, settings)
    return centre(resized(pixels, *shortest_edge(pixels, tiles.shortest_edge), settings), tiles.height, tiles.width)


def prepare_image(pixels: Pixels, contract: VisionContract) -> Prepared:
    """A picture [H, W, 3] for a model of one tile; equal to `LlavaImageProcessorPil` and `CLIPImageProcessorPil`."""
    tiles = contract.tiles
    assert tiles is not None  # checked by the contract
    tile = normalised(one_tile(pixels, tiles, contract.pixels), contract.pixels)
    return Prepared({PIXEL_VALUES: tile[None]}, (tiles.tokens,))
