"""Frames that are chosen, against values computed by hand from transformers' formulas."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lime_edge.contract.vision import Video
from lime_edge.runtime.vision.frame_choice import chosen_frames
from tests.runtime.vision import contracts as c

SMOL = replace(c.SMOLVLM, video=Video(8, 1.0, longest_edge=64))
EVEN = replace(c.LIME, video=Video(4))
PACED = replace(c.LIME, video=Video(4, 2.0))
QWEN = replace(c.QWEN2, video=Video(8, 2.0, 4, least_pixels=784, most_pixels=7840))
QWEN_EVEN = replace(c.QWEN2, video=Video(6, 0.0, 4, least_pixels=784, most_pixels=7840))


@pytest.mark.parametrize(
    ("contract", "count", "rate", "frames"),
    [
        (EVEN, 10, 5.0, [0, 2, 5, 7]),  # n * 10 // 4
        (EVEN, 3, 5.0, [0, 1, 2]),
        (EVEN, 1, 5.0, [0]),
        (PACED, 10, 10.0, [0, 5]),  # two of one second
        (PACED, 10, 100.0, [0]),
        (SMOL, 50, 10.0, [0, 12, 24, 36, 49]),  # one a second: linspace(0, 49, 5)
        (SMOL, 200, 10.0, [10, 35, 61, 87, 112, 138, 164, 190]),  # longer than 8 s and 2 s: without the ends
        (SMOL, 1, 10.0, [0]),
        (QWEN, 60, 30.0, [0, 15, 30, 45]),  # two a second
        (QWEN, 3, 30.0, [0, 1]),  # four at least, as far as there are pairs
        (QWEN, 1, 30.0, [0]),
        (QWEN, 900, 30.0, [0, 112, 225, 337, 450, 562, 675, 787]),  # eight at most
        (QWEN_EVEN, 12, 1.0, [0, 2, 4, 6, 8, 10]),
    ],
)
def test_by_hand(contract: object, count: int, rate: float, frames: list[int]) -> None:
    assert chosen_frames(count, rate, contract) == frames  # type: ignore[arg-type]
