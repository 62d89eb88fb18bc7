"""Models of every family, from a chat message with pictures to logits: as transformers computes them."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
import transformers
from PIL import Image

from lime_edge.contract.content_parts import MediaPart
from lime_edge.contract.model import read_contract
from lime_edge.contract.model_files import file_digest
from lime_edge.runtime import Runtime
from lime_edge.runtime.decoding.kv_cache import Cache
from lime_edge.runtime.vision.prepare import prepare_video
from lime_edge.runtime.vision.video_file import video_source
from tests.exporters.towers.tower_case import checkpoint, contract_of, torch_model
from tests.exporters.vision_case import exported
from tests.runtime.vision.vision_case import asked
from tests.support.runtime_models import skill
from tests.support.vision.tiny_vision import FAMILIES

Array = npt.NDArray[Any]
TILED = ("llava_onevision", "smolvlm", "idefics3")
RNG = np.random.default_rng(3)
PICTURES = [RNG.integers(0, 256, size, dtype=np.uint8) for size in ((60, 90, 3), (50, 40, 3))]
TOLERANCE = 1e-3  # of a logit


def changed(name: str, directory: Path, tiles: int = 1) -> Path:
    """The same model with digests that skills can name, and so many tiles for a picture."""
    shutil.copytree(exported(name).path, directory)
    (directory / "vision.json").write_text(contract_of(name, tiles).to_json(), "utf-8")
    contract = read_contract(directory)
    digests = {**dict(contract.files), "vision.json": file_digest(directory / "vision.json")}
    sizes = {**dict(contract.sizes), "vision.json": (directory / "vision.json").stat().st_size}
    contract = dataclasses.replace(contract, files=tuple(digests.items()), sizes=tuple(sizes.items()))
    contract = dataclasses.replace(contract, backbone_digest="b" * 64, adapter_digest="a" * 64)
    (directory / "lime.json").write_text(contract.to_json(), "utf-8")
    return directory


def processed(name: str, pictures: list[Array], many_tiles: bool) -> dict[str, Any]:
    """What transformers' own processor makes of pictures, for the torch model."""
    settings = json.loads((checkpoint(name) / "preprocessor_config.json").read_text("utf-8"))
    more: dict[str, Any] = {}
    if name in ("smolvlm", "idefics3") and not many_tiles:
        more = {"do_image_splitting": False, "do_resize": False}
    processor = getattr(transformers, settings.pop("image_processor_type") + "Pil")(**settings)
    images: Any = [Image.fromarray(one) for one in pictures]
    if name in TILED and not (name == "llava_onevision" and many_tiles):
        images = [images]
    if name == "llava_onevision" and not many_tiles and len(pictures) == 1:
        images = [[images[0][0], images[0][0]]]  # more than one picture: no tiles
    found = {
        key: torch.from_numpy(np.asarray(value))
        for key, value in processor(images, return_tensors="np", **more).items()
    }
    if name == "llava_onevision" and not many_tiles and len(pictures) == 1:
        found = {"pixel_values": found["pixel_values"][:1], "image_sizes": found["image_sizes"][:1]}
        found["batch_num_images"] = torch.tensor([2])
    return {key: value for key, value in found.items() if key not in ("rows", "cols")}


def expected(name: str, ids: Array, features: Array, pictures: list[Array], many_tiles: bool) -> Array:
    """Logits [S, V] of transformers."""
    given = processed(name, pictures, many_tiles) if pictures else {}
    if name.startswith("qwen"):
        given["mm_token_type_ids"] = torch.from_numpy((features >= 0).astype(np.int32))[None]
    with torch.no_grad():
        found: Array = torch_model(name)(input_ids=torch.from_numpy(ids)[None], **given).logits[0].numpy()
    return found


def ours(runtime: Runtime, messages: Any, cuts: tuple[int, ...] = ()) -> tuple[Array, Array, Array]:
    """Token ids as the graph reads them, rows of features, and logits [S, V] of the base, in runs ending at `cuts`."""
    tokens, graph = runtime._text.tokens(messages), runtime._graph
    fed = graph.pictures.feed(tokens.ids) if graph.pictures and tokens.pictures else None
    with runtime._registry.lease([None]) as lease:
        cache = Cache(graph, lease.array, 1, len(tokens.ids) + 8)
        pieces = np.split(tokens.ids, cuts)
        logits = [cache.extend(0, piece, np.zeros(len(piece), np.int64)).copy() for piece in pieces]
    plain, rows = (tokens.ids, np.full(len(tokens.ids), -1)) if fed is None else (fed.ids, fed.feature_ids)
    return plain, rows, np.concatenate(logits)


@pytest.mark.parametrize(
    ("name", "many_tiles"), [*((name, False) for name in FAMILIES), *((name, True) for name in TILED)]
)
def test_logits_are_those_of_transformers(name: str, many_tiles: bool, tmp_path: Path) -> None:
    path = changed(name, tmp_path / "model", 16) if many_tiles else exported(name).path
    runtime = Runtime.load(path, threads=1)
    for pictures in (PICTURES, PICTURES[:1], []):
        if many_tiles and name == "llava_onevision" and len(pictures) == 2:
            pictures = PICTURES[1:]  # transformers tiles the only picture of a request
        messages = asked("a", *pictures, "what is this?")
        ids, rows, logits = ours(runtime, messages)
        wanted = expected(name, ids, rows, pictures, many_tiles)
        assert np.abs(logits - wanted).max() < TOLERANCE
        middle = int(np.flatnonzero(rows >= 0)[1]) if pictures else 5  # inside of a picture
        _, _, steps = ours(runtime, messages, (3, middle, len(ids) - 2, len(ids) - 1))
        assert np.abs(steps - wanted).max() < TOLERANCE


@pytest.mark.parametrize("name", ["llava_siglip", "llava_onevision", "qwen2_5_vl"])
def test_a_row_alone_is_a_row_of_any_batch(name: str, tmp_path: Path) -> None:
    path = changed(name, tmp_path / "model")
    runtime = Runtime.load(path, threads=1, prefix_cache=0)
    runtime.load_skill(skill(path, "shade"))
    prompts: list[str | list[dict[str, Any]]] = [
        asked("a", *PICTURES),
        asked(PICTURES[1], "b"),
        "no picture",
        asked("c", PICTURES[0], "d"),
    ]
    skills = ["shade", None, "shade", None]
    together = runtime.generate(prompts, skills, max_new_tokens=5)
    alone = [runtime.generate(one, by, max_new_tokens=5) for one, by in zip(prompts, skills, strict=True)]
    assert [one.token_ids for one in together] == [one.token_ids for one in alone]


@pytest.mark.parametrize("name", ["llava_onevision", "qwen2_vl", "qwen2_5_vl"])
def test_logits_of_videos_are_those_of_transformers(name: str) -> None:
    """Frames are prepared by us (transformers needs torchvision for it); features and positions are compared."""
    runtime = Runtime.load(exported(name).path, threads=1)
    clip = RNG.integers(0, 256, (3, 40, 60, 3), dtype=np.uint8)
    content = [{"type": "text", "text": "a"}, {"type": "video", "video": clip}, {"type": "image", "image": PICTURES[1]}]
    ids, rows, logits = ours(runtime, [{"role": "user", "content": [*content, {"type": "text", "text": "b"}]}])
    contract = contract_of(name)
    made = prepare_video(video_source(MediaPart("video", "object", clip)).clip(contract), contract)
    given = processed(name, PICTURES[1:], False)
    values = torch.from_numpy(made.arrays["pixel_values"])
    if made.grid is None:
        given["pixel_values_videos"] = values[None]
    else:
        groups = values.reshape(-1, 4, values.shape[1])
        order = made.pack({"features": np.arange(made.count)})  # back from the order of windows
        given["pixel_values_videos"] = groups[order].reshape(values.shape)
        given["video_grid_thw"] = torch.from_numpy(np.array([made.grid]) * (1, 2, 2))
        kinds = np.where(rows < 0, 0, np.where(ids == contract.video_token_id, 2, 1))
        given["mm_token_type_ids"] = torch.from_numpy(kinds.astype(np.int32))[None]
        if name == "qwen2_5_vl":
            given["second_per_grid_ts"] = torch.tensor([2 / 24])
    with torch.no_grad():
        wanted = torch_model(name)(input_ids=torch.from_numpy(ids)[None], **given).logits[0].numpy()
    assert np.abs(logits - wanted).max() < TOLERANCE
