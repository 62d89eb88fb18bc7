"""vision.json: written and read back, and every fault and contradiction rejected."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lime_edge.contract.vision import (
    BYTES_LIMIT,
    Marks,
    Patches,
    Pixels,
    Tiles,
    Video,
    VisionContract,
    read_vision,
)
from lime_edge.errors import ModelError

PIXELS = Pixels("bicubic", 1 / 255, (0.48, 0.45, 0.4), (0.27, 0.26, 0.28))
ONE_TILE = VisionContract("llava", 64, "<image>", 5, PIXELS, Tiles(28, 28, 14, 4, shortest_edge=28))
GRID = replace(
    ONE_TILE,
    family="llava_onevision",
    tiles=Tiles(28, 28, 14, 4, limit=3, grid=((28, 56), (56, 28))),
    video=Video(8),
    video_token="<video>",
    video_token_id=6,
)
SPLIT = replace(
    ONE_TILE,
    family="smolvlm",
    tiles=Tiles(28, 28, 7, 4, limit=5, longest_edge=56),
    marks=Marks("<fake>", "<row_{row}_col_{column}>", "<global-img>"),
)
QWEN = replace(
    ONE_TILE,
    family="qwen2_5_vl",
    tiles=None,
    patches=Patches(14, 2, 2, 784, 784 * 100, 112),
    video=Video(8, 2.0, 4, 0, 784, 784 * 10, 2.0),
)
CONTRACTS = [ONE_TILE, GRID, SPLIT, QWEN, replace(ONE_TILE, family="lime_vision")]


@pytest.mark.parametrize("contract", CONTRACTS, ids=lambda contract: str(contract.family))
def test_json_and_back(contract: VisionContract, tmp_path: Path) -> None:
    assert contract.faults() == []
    (tmp_path / "vision.json").write_text(contract.to_json(), "utf-8")
    assert read_vision(tmp_path) == contract


def test_only_families_in_patches_have_positions_in_three_dimensions() -> None:
    assert [contract.rotary_3d for contract in CONTRACTS] == [False, False, False, True, False]


def test_every_fault_is_named_at_once() -> None:
    document = json.loads(SPLIT.to_json())
    document.update(family="qwen3_vl", image_token="", unknown=1)
    document["pixels"].update(std=[1, 0, 1], resample="cubic")
    document["tiles"].update(height=2**20, limit=True)
    del document["marks"]["whole"]
    with pytest.raises(ModelError) as caught:
        VisionContract.from_json(json.dumps(document))
    for fault in (
        "unknown key 'unknown'",
        "family is 'qwen3_vl'; expected one of llava,",
        "image_token is ''",
        "pixels.std[1] is 0",
        "pixels.resample is 'cubic'",
        "tiles.height is 1048576",
        "tiles.limit is True",
        "marks lacks the key 'whole'",
    ):
        assert fault in str(caught.value)


CONTRADICTIONS: list[tuple[VisionContract, str]] = [
    (replace(ONE_TILE, patches=QWEN.patches), "family llava needs tiles and no patches"),
    (replace(QWEN, tiles=ONE_TILE.tiles), "family qwen2_5_vl needs patches and no tiles"),
    (replace(ONE_TILE, marks=SPLIT.marks), "family llava with marks"),
    (replace(SPLIT, marks=None), "family smolvlm without marks"),
    (replace(SPLIT, marks=Marks("<a>", "<{0}>", "<b>")), "with the fields {row} and {column}"),
    (replace(SPLIT, marks=Marks("<a>", "<{row.x}>", "<b>")), "with the fields {row} and {column}"),
    (replace(GRID, video_token_id=-1), "video_token is '<video>', video_token_id is -1"),
    (replace(ONE_TILE, tiles=Tiles(28, 28, 14, 4, shortest_edge=20)), "at least the tile's 28"),
    (replace(ONE_TILE, tiles=Tiles(28, 28, 14, 4, limit=2)), "expected 1 for a picture of one tile"),
    (replace(ONE_TILE, tiles=GRID.tiles), "family llava has no tiles.grid"),
    (replace(ONE_TILE, tiles=SPLIT.tiles), "family llava has no tiles.longest_edge"),
    (replace(GRID, tiles=Tiles(28, 28, 14, 4, limit=2, grid=((56, 28),))), "at most 2 tiles"),
    (replace(GRID, tiles=Tiles(28, 28, 14, 4, limit=9, grid=((30, 28),))), "expected multiples of (28, 28)"),
    (replace(GRID, tiles=Tiles(28, 28, 14, 5)), "tiles.tokens is 5; expected 4"),
    (replace(SPLIT, tiles=Tiles(28, 28, 7, 4, limit=5, longest_edge=57)), "10 tiles, above the limit of 5"),
    (replace(SPLIT, tiles=Tiles(28, 27, 7, 4)), "expected squares"),
    (replace(QWEN, patches=Patches(14, 2, 2, 784, 784 * 2**15, 112)), "patches.most_pixels 25690112"),
    (replace(QWEN, video=Video(8, 2.0, 4, 0, 9000, 900)), "video.least_pixels is 9000"),
    (replace(QWEN, patches=Patches(14, 2, 2, 784, 7840)), "family qwen2_5_vl has patches.window 0"),
    (replace(QWEN, patches=Patches(14, 2, 2, 784, 7840, 20)), "patches.window is 20; expected at least 28"),
]


@pytest.mark.parametrize(("contract", "fault"), CONTRADICTIONS)
def test_contradictions_are_rejected(contract: VisionContract, fault: str) -> None:
    assert any(fault in found for found in contract.faults())
    with pytest.raises(ModelError, match=r"vision\.json contradicts itself") as caught:
        VisionContract.from_json(contract.to_json())
    assert fault in str(caught.value)


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (b"\xff", "cannot be read"),
        ("[]", "has format None"),
        ('{"format": 2}', "has format 2; this version reads 1"),
        ('{"format": true}', "has format True"),
        ('{"format": 1}', "lacks the key 'family'"),
        ('{"format": 1, "format": 1}', "appears twice"),
        ("[" * 100_000, f"more than {BYTES_LIMIT} bytes"),
        ("[" * 60_000, "cannot be read"),
    ],
)
def test_other_files_are_rejected(data: str | bytes, fault: str) -> None:
    with pytest.raises(ModelError, match=fault):
        VisionContract.from_json(data)


def test_a_missing_and_a_huge_file(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"vision\.json cannot be read: No such file"):
        read_vision(tmp_path)
    (tmp_path / "vision.json").write_bytes(b" " * 10**7)
    with pytest.raises(ModelError, match="more than"):
        read_vision(tmp_path)


def _set(path: str, value: Any) -> Callable[[Any], None]:
    def change(document: Any) -> None:
        *parents, last = path.split(".")
        for name in parents:
            document = document[name]
        document[last] = value

    return change


@pytest.mark.parametrize("value", [None, True, -5, 2**40, 1e308, "x", [], {}, [[[]]]])
@pytest.mark.parametrize(
    "path", ["family", "features", "image_token_id", "pixels.mean", "tiles.grid", "tiles", "video.fps"]
)
def test_values_of_another_type_are_rejected(path: str, value: Any) -> None:
    document = json.loads(GRID.to_json())
    _set(path, value)(document)
    with pytest.raises(ModelError):
        VisionContract.from_json(json.dumps(document))
