"""Every family's preprocessing equals that of transformers' Pillow classes, difference 0, for pictures of any size."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import transformers
from PIL import Image
from transformers.models.smolvlm import processing_smolvlm as smolvlm

from lime_edge.contract.vision import VisionContract
from lime_edge.runtime.vision.prepare import prepare_image
from tests.runtime.vision import contracts as c

SIZES = 200  # of pictures, for each family


def pictures(seed: int, most: int = 150) -> Iterator[np.ndarray[Any, np.dtype[np.uint8]]]:
    """Random pictures: of any size, and some long and narrow ones."""
    rng = np.random.default_rng(seed)
    for number in range(SIZES):
        height, width = rng.integers(1, most, 2)
        if number % 10 == 0:
            height, width = (3, most) if number % 20 else (most, 3)
        yield rng.integers(0, 256, (height, width, 3), dtype=np.uint8)


def settings(contract: VisionContract) -> dict[str, Any]:
    pixels = contract.pixels
    return {
        "resample": int(Image.Resampling[pixels.resample.upper()]),
        "rescale_factor": pixels.rescale,
        "image_mean": list(pixels.mean),
        "image_std": list(pixels.std),
    }


def oracle(name: str, contract: VisionContract, **more: Any) -> Callable[[Any], Any]:
    processor = getattr(transformers, name)(**settings(contract), **more)
    return lambda pixels: processor(Image.fromarray(pixels), return_tensors="np")


@pytest.mark.parametrize(
    ("contract", "name", "more"),
    [
        (
            c.LLAVA,
            "CLIPImageProcessorPil",
            {"size": {"shortest_edge": 28}, "crop_size": {"height": 28, "width": 28}},
        ),
        (
            c.LLAVA_SQUARE,
            "LlavaImageProcessorPil",
            {"size": {"height": 28, "width": 28}, "do_pad": True, "do_center_crop": False},
        ),
        (c.LIME, "SiglipImageProcessorPil", {"size": {"height": 32, "width": 32}}),
    ],
)
def test_one_tile(contract: VisionContract, name: str, more: dict[str, Any]) -> None:
    expected = oracle(name, contract, **more)
    for pixels in pictures(1):
        made = prepare_image(pixels, contract)
        np.testing.assert_array_equal(made.arrays["pixel_values"], expected(pixels)["pixel_values"])
        assert contract.tiles is not None
        assert made.pieces == (contract.tiles.tokens,)


def test_llava_onevision() -> None:
    more = {"size": {"height": 28, "width": 28}, "image_grid_pinpoints": [list(pair) for pair in c.GRID]}
    expected = oracle("LlavaOnevisionImageProcessorPil", c.ONEVISION, **more)
    for pixels in pictures(2):
        made = prepare_image(pixels, c.ONEVISION)
        np.testing.assert_array_equal(made.arrays["pixel_values"], expected(pixels)["pixel_values"][0])


def test_llava_onevision_of_one_tile() -> None:
    """As transformers prepares each of several pictures."""
    more: Any = {"size": {"height": 28, "width": 28}, "image_grid_pinpoints": [[28, 28]]}
    processor: Any = transformers.LlavaOnevisionImageProcessorPil(**settings(c.ONEVISION_ONE), **more)
    for pixels in pictures(3):
        pair = [Image.fromarray(pixels)] * 2
        expected = processor([pair], return_tensors="np")["pixel_values"][0]
        made = prepare_image(pixels, c.ONEVISION_ONE)
        np.testing.assert_array_equal(made.arrays["pixel_values"], expected)
        assert made.pieces == (17,)


@pytest.mark.parametrize("name", ["SmolVLMImageProcessorPil", "Idefics3ImageProcessorPil"])
def test_smolvlm(name: str) -> None:
    more = {"size": {"longest_edge": 128}, "max_image_size": {"longest_edge": 32}, "return_row_col_info": True}
    expected = oracle(name, c.SMOLVLM, **more)
    for pixels in pictures(4):
        made, there = prepare_image(pixels, c.SMOLVLM), expected(pixels)
        np.testing.assert_array_equal(made.arrays["pixel_values"], there["pixel_values"][0])
        assert "".join("<image>" * one if isinstance(one, int) else one for one in made.pieces) == prompt(there)


def prompt(there: Any) -> str:
    write: Any = smolvlm.get_image_prompt_string
    return str(write(there["rows"][0][0], there["cols"][0][0], 4, "<fake>", "<image>", "<global>"))


def test_smolvlm_of_one_tile() -> None:
    more = {"max_image_size": {"longest_edge": 32}, "do_image_splitting": False, "do_resize": False}
    expected = oracle("SmolVLMImageProcessorPil", c.SMOLVLM_ONE, **more)
    for pixels in pictures(5):
        made = prepare_image(pixels, c.SMOLVLM_ONE)
        np.testing.assert_array_equal(made.arrays["pixel_values"], expected(pixels)["pixel_values"][0])
        assert made.pieces == ("<fake><global>", 4, "<fake>")


@pytest.mark.parametrize("contract", [c.QWEN2, c.QWEN2_5])
def test_qwen2_vl(contract: VisionContract) -> None:
    patches = contract.patches
    assert patches is not None
    more = {
        "size": {"shortest_edge": patches.least_pixels, "longest_edge": patches.most_pixels},
        **{"patch_size": 7, "merge_size": 2, "temporal_patch_size": 2},
    }
    expected = oracle("Qwen2VLImageProcessorPil", contract, **more)
    for pixels in pictures(6):
        made, there = prepare_image(pixels, contract), expected(pixels)
        values, order = made.arrays["pixel_values"], window_index(contract, there["image_grid_thw"])
        wanted = there["pixel_values"].reshape(-1, 4, values.shape[1])[order].reshape(values.shape)
        np.testing.assert_array_equal(values, wanted)
        assert made.grid is not None
        assert (1, made.grid[1] * 2, made.grid[2] * 2) == tuple(there["image_grid_thw"][0])


def window_index(contract: VisionContract, grid: Any) -> Any:
    """transformers' own order of features; as they are without windows."""
    import torch
    from transformers.vision_utils import get_vision_window_index

    assert contract.patches is not None
    if not contract.patches.window:
        return np.arange(grid.prod() // 4)
    return get_vision_window_index(torch.from_numpy(grid), 2, contract.patches.window, 7)[0].numpy()
