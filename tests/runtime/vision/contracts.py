"""Vision contracts of small models, one of each family and way of cutting."""

from __future__ import annotations

from lime_edge.contract.vision import Family, Marks, Patches, Pixels, Tiles, Video, VisionContract

CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def contract(
    family: Family, *, tiles: Tiles | None = None, patches: Patches | None = None, **more: object
) -> VisionContract:
    """A valid contract; image token 0, video token 1."""
    mean, std = CLIP if tiles is None or family in ("llava", "llava_onevision") else HALF
    resample = "lanczos" if family == "smolvlm" else "bicubic"
    pixels = Pixels(resample, 1 / 255, mean, std)  # type: ignore[arg-type]
    if family == "lime_vision":
        pixels = Pixels("bicubic", 1.0, (127.0,) * 3, (128.0,) * 3)
    marks = Marks("<fake>", "<row_{row}_col_{column}>", "<global>") if family == "smolvlm" else None
    found = VisionContract(
        family=family,
        features=4,
        image_token="<image>",  # a token of a prompt
        image_token_id=0,
        pixels=pixels,
        tiles=tiles,
        patches=patches,
        marks=marks,
        **more,  # type: ignore[arg-type]
    )
    assert found.faults() == []
    return found


GRID = ((56, 56), (28, 56), (56, 28), (28, 84), (84, 28), (84, 84), (28, 112), (112, 28))
LLAVA = contract("llava", tiles=Tiles(28, 28, 7, 16, shortest_edge=28))
LLAVA_SQUARE = contract("llava", tiles=Tiles(28, 28, 7, 16, square=True))
LIME = contract("lime_vision", tiles=Tiles(32, 32, 32, 10))
ONEVISION = contract("llava_onevision", tiles=Tiles(28, 28, 7, 16, limit=10, grid=GRID, grid_tiles=2))
ONEVISION_ONE = contract("llava_onevision", tiles=Tiles(28, 28, 7, 16, square=True))
SMOLVLM = contract("smolvlm", tiles=Tiles(32, 32, 8, 4, limit=17, longest_edge=128))
SMOLVLM_ONE = contract("smolvlm", tiles=Tiles(32, 32, 8, 4))
QWEN2 = contract(
    "qwen2_vl",
    patches=Patches(7, 2, 2, 14 * 14 * 4, 14 * 14 * 40),
    video=Video(16, 2.0, 2, least_pixels=14 * 14 * 4, most_pixels=14 * 14 * 40),
    video_token="<video>",
    video_token_id=1,
)
QWEN2_5 = contract(
    "qwen2_5_vl",
    patches=Patches(7, 2, 2, 14 * 14 * 4, 14 * 14 * 40, window=28),
    video=Video(16, 2.0, 2, least_pixels=14 * 14 * 4, most_pixels=14 * 14 * 40, tokens_per_second=4.0),
    video_token="<video>",
    video_token_id=1,
)
