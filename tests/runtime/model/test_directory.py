"""Model directories with faults: all faults are reported at once."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lime_edge.common.digests import json_digest
from lime_edge.contract.model import read_contract
from lime_edge.contract.model_files import file_digest
from lime_edge.errors import ModelError
from lime_edge.runtime import Runtime
from tests.support.runtime_models import edit_json, exported


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    return shutil.copytree(exported(), tmp_path / "model")


def edit(name: str, change: Callable[[Any], None]) -> Callable[[Path], None]:
    return lambda folder: edit_json(folder / name, change)


def damage(name: str) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        data = bytearray((folder / name).read_bytes())
        data[len(data) // 2] ^= 1
        (folder / name).write_bytes(data)

    return apply


def remove(*names: str) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        for name in names:
            (folder / name).unlink()

    return apply


def written(name: str, data: bytes) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        (folder / name).write_bytes(data)

    return apply


def sealed(name: str, data: bytes) -> Callable[[Path], None]:
    """Replace a file and update its digest in lime.json."""

    def apply(folder: Path) -> None:
        (folder / name).write_bytes(data)
        old = read_contract(folder)
        files = tuple((one, file_digest(folder / one)) for one, _ in old.files)
        sizes = tuple((one, (folder / one).stat().st_size) for one, _ in old.files)
        (folder / "lime.json").write_text(replace(old, files=files, sizes=sizes).to_json(), "utf-8")

    return apply


def reach_out(graph: dict[str, Any]) -> None:
    graph["files"]["../x"] = "0"
    graph["digest"] = json_digest(sorted(graph["files"].items()))


FAULTS: list[tuple[Callable[[Path], None], list[str]]] = [
    (remove("lime.json"), ["lime.json is missing: lime-edge did not export this directory"]),
    (
        remove("model.onnx", "model.onnx.data", "tokenizer.json", "genai_config.json"),
        ["model.onnx is missing", "model.onnx.data is missing", "tokenizer.json is missing", "genai_config.json is"],
    ),
    (damage("model.onnx"), ["model.onnx has digest", "changed or damaged"]),
    (
        written("model.onnx.data", bytes(12)),
        ["model.onnx.data has 12 bytes; expected ", ": the file is truncated: copy"],
    ),
    (edit("lime.json", lambda d: d["graph"].update(sizes={"x": 1})), ["sizes names x; expected some of model.onnx"]),
    (edit("lime.json", lambda d: d.update(format=9)), ["lime.json has format 9; this version reads 1: export again"]),
    (edit("lime.json", lambda d: d.update(row_size=1)), ["the offsets do not follow from the module table"]),
    (
        edit("lime.json", lambda d: d["modules"][0].update(offsets={"gain": 0})),
        ["the offsets do not follow from the module table"],
    ),
    (edit("lime.json", lambda d: d["modules"][0].update(offsets=None)), ["lime.json cannot be read"]),
    (edit("lime.json", lambda d: reach_out(d["graph"])), ["lime.json names '../x'; expected a plain file name"]),
    (written("lime.json", b"\xff"), ["lime.json cannot be read"]),
    (written("genai_config.json", b"[1]"), ["holds list; expected an object"]),
    (written("genai_config.json", b"{"), ["genai_config.json cannot be read"]),
    (edit("genai_config.json", lambda d: d["model"].pop("decoder")), ["does not describe a decoder: KeyError"]),
    (edit("genai_config.json", lambda d: d["model"].update(context_length=-1)), ["-1 is not a valid size"]),
    (edit("genai_config.json", lambda d: d["model"].update(eos_token_id=[])), ["eos_token_id is empty"]),
    (edit("genai_config.json", lambda d: d["model"].update(eos_token_id=float("inf"))), ["eos_token_id inf is not a"]),
    (edit("genai_config.json", lambda d: d["model"].update(eos_token_id=[2, 2**70])), ["is not a token id"]),
    (edit("genai_config.json", lambda d: d["model"].update(eos_token_id="2")), ["'2' is not a token id"]),
    (edit("genai_config.json", lambda d: d["model"]["decoder"].update(filename="x.onnx")), ["the graph 'x.onnx'"]),
    (
        edit("genai_config.json", lambda d: d["model"]["decoder"]["inputs"].update(past_key_names="old.%d")),
        ["no input or output 'old.0'", "input 'past_key_values.1.key' is unknown"],
    ),
    (
        edit("genai_config.json", lambda d: d["model"]["decoder"]["inputs"].update(past_key_names="past")),
        ["'past' has no placeholder %d for the layer"],
    ),
    (
        edit("genai_config.json", lambda d: d["search"].update(past_present_share_buffer=False)),
        ["past and present do not share a buffer"],
    ),
    (sealed("model.onnx", b"nothing"), ["cannot load", "model.onnx"]),
    (sealed("tokenizer.json", b"{"), ["tokenizer.json cannot be read"]),
]


@pytest.mark.parametrize(("spoil", "messages"), FAULTS)
def test_a_directory_that_cannot_be_used(copied: Path, spoil: Callable[[Path], None], messages: list[str]) -> None:
    spoil(copied)
    with pytest.raises(ModelError) as caught:
        Runtime.load(copied, threads=1)
    for message in messages:
        assert message in str(caught.value)


def test_weights_are_verified_when_asked(copied: Path) -> None:
    damage("model.onnx.data")(copied)
    Runtime.load(copied, threads=1)
    with pytest.raises(ModelError, match=r"model\.onnx\.data has digest"):
        Runtime.load(copied, threads=1, verify=True)


def test_no_directory(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is not a directory; expected what `lime-edge export` writes"):
        Runtime.load(tmp_path / "nope")
