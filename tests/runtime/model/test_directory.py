"""Opening a model directory: every fault at once, the device, and what is not imported."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnxruntime as ort
import pytest

import lime_edge.runtime
from lime_edge.common.digests import json_digest
from lime_edge.contract.model import ModelContract, read_contract
from lime_edge.errors import ConfigError, DeviceError, ModelError
from lime_edge.runtime import Runtime
from lime_edge.runtime.model.directory import file_digest
from tests.support.paths import ROOT
from tests.support.runtime_models import exported, skill


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    return shutil.copytree(exported(), tmp_path / "model")


def test_public_names() -> None:
    assert lime_edge.runtime.__all__ == [
        "Choice",
        "Generation",
        "Operators",
        "Runtime",
        "SkillInfo",
        "Stream",
        "Timings",
    ]


def test_load(copied: Path) -> None:
    made = Runtime.load(str(copied), device="cpu", threads=1, verify=True)
    assert (made.device, made.context_length, made.contract.precision) == ("cpu", 256, "fp32")
    assert (made.skills(), made.active_skill) == ([], None)


def edit(name: str, change: Callable[[Any], None]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        document = json.loads((folder / name).read_text("utf-8"))
        change(document)
        (folder / name).write_text(json.dumps(document), "utf-8")

    return apply


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
    """Replace a file and make lime.json agree."""

    def apply(folder: Path) -> None:
        (folder / name).write_bytes(data)
        old = read_contract(folder)
        files = tuple((one, file_digest(folder / one)) for one, _ in old.files)
        (folder / "lime.json").write_text(ModelContract(**{**vars_of(old), "files": files}).to_json(), "utf-8")

    return apply


def reach_out(graph: dict[str, Any]) -> None:
    graph["files"]["../x"] = "0"
    graph["digest"] = json_digest(sorted(graph["files"].items()))


def vars_of(contract: ModelContract) -> dict[str, Any]:
    return {name: getattr(contract, name) for name in contract.__dataclass_fields__}


FAULTS: list[tuple[Callable[[Path], None], list[str]]] = [
    (remove("lime.json"), ["lime.json is missing: lime-edge did not export this directory"]),
    (
        remove("model.onnx", "model.onnx.data", "tokenizer.json", "genai_config.json"),
        ["model.onnx is missing", "model.onnx.data is missing", "tokenizer.json is missing", "genai_config.json is"],
    ),
    (damage("model.onnx"), ["model.onnx has digest", "changed or damaged"]),
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


def test_a_graph_without_a_bank(copied: Path) -> None:
    """A contract that promises a window which the graph does not have."""
    edit("lime.json", lambda document: document["routing"].update(window=2))(copied)
    with pytest.raises(ModelError) as caught:
        Runtime.load(copied, threads=1)
    assert caught.value.faults == (
        "no input or output 'lime.past_evidence'",
        "no input or output 'lime.evidence'",
    )


def test_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError) as caught:
        Runtime.load(exported(), device="tpu", threads=0, spin=-1)
    assert len(caught.value.faults) == 3
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(DeviceError) as missing:
        Runtime.load(exported(), device="cuda")
    assert "needs CUDAExecutionProvider; this onnxruntime has CPUExecutionProvider" in str(missing.value)
    assert "pip install 'lime-edge[cuda]'" in str(missing.value)
    assert Runtime.load(exported(), device="auto", threads=1).device == "cpu"


def test_a_library_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is not a library of LiME operators for this machine"):
        Runtime.load(exported(), threads=1, operators=tmp_path / "nope.so")


SCRIPT = """
import sys
from lime_edge.runtime import Runtime
made = Runtime.load(sys.argv[1], threads=1)
made.load_skill(sys.argv[2])
made.use_skill("legal")
made.generate("Hello", max_new_tokens=3)
list(made.stream("Hello", max_new_tokens=3))
made.choose("Hello", ["yes", "no"])
heavy = {"torch", "transformers", "peft", "onnx", "onnx_ir", "onnxscript", "optimum"}
print(sorted(heavy & set(sys.modules)))
"""


def test_running_needs_neither_torch_nor_onnx() -> None:
    command = [sys.executable, "-W", "error", "-c", SCRIPT, str(exported()), str(skill(exported(), "legal"))]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert (done.stdout.strip(), done.stderr, done.returncode) == ("[]", "", 0)
