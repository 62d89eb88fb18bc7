"""Placeholders become texts and features; positions in three dimensions are those of transformers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import transformers

from lime_edge.errors import ConfigError
from lime_edge.runtime.vision.placement import place, placeholders, positions
from lime_edge.runtime.vision.prepared import Prepared
from tests.runtime.vision import contracts as c


def encode(text: str) -> list[int]:
    return [100 + ord(char) for char in text]


def test_a_placeholder_becomes_texts_and_features() -> None:
    first, second = Prepared({}, ("ab", 2, "c")), Prepared({}, (3,))
    made = place([7, 0, 8, 0, 9], 2, [first, second], c.LLAVA, encode)
    assert made.ids.tolist() == [7, 197, 198, 0, 0, 199, 8, 0, 0, 0, 9]
    assert made.owners.tolist() == [-1, -1, -1, 0, 0, -1, -1, 1, 1, 1, -1]
    assert made.feature_ids.tolist() == [-1, -1, -1, 0, 1, -1, -1, 2, 3, 4, -1]
    assert made.boundary == 6
    assert place([7, 0], 2, [second], c.LLAVA, encode).boundary == 4


def test_placeholders_take_the_next_picture_of_their_kind() -> None:
    """Templates such as that of LLaVA-OneVision write images first, then videos."""
    pictures = [Prepared({}, (1,), "video"), Prepared({}, (2,)), Prepared({}, (1,), "video")]
    made = place([0, 1, 1], 0, pictures, c.QWEN2, encode)
    assert made.ids.tolist() == [0, 0, 1, 1]
    assert made.owners.tolist() == [1, 1, 0, 2]
    assert made.feature_ids.tolist() == [1, 2, 0, 3]
    assert placeholders(c.QWEN2) == {"image": 0, "video": 1}
    assert placeholders(c.LLAVA) == {"image": 0}


def test_as_many_pictures_as_placeholders() -> None:
    one = Prepared({}, (1,))
    with pytest.raises(ConfigError, match="more placeholders than images"):
        place([0, 0], 0, [one], c.LLAVA, encode)
    with pytest.raises(ConfigError, match="fewer placeholders than pictures"):
        place([0], 0, [one, one], c.LLAVA, encode)


def test_positions_by_hand() -> None:
    """Two tokens, a picture of 2 x 3 features, one token."""
    picture = Prepared({}, (6,), grid=(1, 2, 3))
    placed = place([7, 7, 0, 7], 0, [picture], c.QWEN2, encode)
    found, delta = positions(placed, [picture])
    assert found.tolist() == [
        [0, 1, 2, 2, 2, 2, 2, 2, 5],
        [0, 1, 2, 2, 2, 3, 3, 3, 5],
        [0, 1, 2, 3, 4, 2, 3, 4, 5],
    ]
    assert delta == -3


@pytest.mark.parametrize("seed", range(8))
def test_positions_of_transformers(seed: int) -> None:
    rng = np.random.default_rng(seed)
    pictures, ids = [], [7]
    for _ in range(rng.integers(1, 4)):
        video = bool(rng.integers(2))
        grid = (int(rng.integers(1, 4)) if video else 1, int(rng.integers(1, 5)), int(rng.integers(1, 5)))
        kind = "video" if video else "image"
        pictures.append(Prepared({}, (int(np.prod(grid)),), kind, grid=grid, interval=2.0 * 1.3 if video else 1.0))  # type: ignore[arg-type]
        ids += [int(video), *([7] * rng.integers(1, 5))]  # pictures are marked on both sides
    placed = place(ids, 0, pictures, c.QWEN2_5, encode)
    config = transformers.Qwen2_5_VLConfig(vision_config={"spatial_merge_size": 2, "tokens_per_second": 2})
    with torch.device("meta"):
        model: Any = transformers.Qwen2_5_VLModel(config)
    grids = {
        kind: torch.tensor(
            [[one.grid[0], one.grid[1] * 2, one.grid[2] * 2] for one in pictures if one.kind == kind and one.grid]
        )
        for kind in ("image", "video")
    }
    types = torch.tensor([[{0: 1, 1: 2}.get(int(token), 0) for token in placed.ids]])
    wanted, delta = model.get_rope_index(
        torch.from_numpy(placed.ids)[None],
        types,
        grids["image"],
        grids["video"],
        second_per_grid_ts=torch.full((9,), 1.3, dtype=torch.float64),
    )
    found, ours = positions(placed, pictures)
    assert found.tolist() == wanted[:, 0].tolist()
    assert ours == int(delta)
