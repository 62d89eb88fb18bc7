"""Reasons why a graph cannot be loaded, in words that name no C++."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import onnxruntime as ort
import pytest

from lime_edge.errors import ModelError
from lime_edge.runtime import Runtime
from lime_edge.runtime.model.load_errors import plain_reason
from tests.support.runtime_models import edit_json, exported

_CPLUSPLUS = (
    "[ONNXRuntimeError] : 1 : FAIL : Exception during initialization: /onnxruntime_src/core/frame.cc:74 "
    "ort::Frame::Info::Info(const std::vector<const ort::Node*>&, const std::function<bool(const string&)>&) "
    "[ONNXRuntimeError] : 1 : FAIL : utils.cc:2201 GetExtData External initializer: B1 "
)


def cut(name: str, size: int) -> Callable[[Path], None]:
    return lambda folder: os.truncate(folder / name, size)


def replaced(old: bytes, new: bytes) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        data = (folder / "model.onnx").read_bytes()
        assert old in data
        (folder / "model.onnx").write_bytes(data.replace(old, new))

    return apply


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (cut("model.onnx.data", 1000), "the file of its weights has 1000 bytes, fewer than the graph reads: it is "),
        (cut("model.onnx.data", 0), "the file of its weights has 0 bytes, fewer than the graph reads: it is truncated"),
        (cut("model.onnx", 1000), "the file is damaged or no ONNX graph: copy the directory again"),
        (cut("model.onnx", 0), "the file is damaged or no ONNX graph: copy the directory again"),
        (replaced(b"GroupQueryAttention", b"GroupQueryAttentioX"), "com.microsoft:GroupQueryAttentioX(-1) is not a "),
    ],
)
def test_what_onnxruntime_says(spoil: Callable[[Path], None], reason: str, tmp_path: Path) -> None:
    copied = shutil.copytree(exported(), tmp_path / "model")
    spoil(copied)
    options = ort.SessionOptions()
    options.log_severity_level = 4
    with pytest.raises(Exception, match="ONNXRuntimeError") as caught:
        ort.InferenceSession(copied / "model.onnx", options, providers=["CPUExecutionProvider"])
    found = plain_reason(caught.value)
    assert reason in found
    assert len(found) < 250
    assert not {"::", ".cc", "ONNXRuntimeError"} & {part for part in ("::", ".cc", "ONNXRuntimeError") if part in found}


def test_a_truncated_model_without_sizes(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A model of an early version: only the load finds that its weights are truncated."""
    copied = shutil.copytree(exported(), tmp_path / "model")
    edit_json(copied / "lime.json", lambda document: document["graph"].pop("sizes"))
    os.truncate(copied / "model.onnx.data", 1000)
    capfd.readouterr()
    with pytest.raises(ModelError) as caught:
        Runtime.load(copied, threads=1)
    assert str(caught.value) == (
        f"ONNX Runtime {ort.__version__} cannot load {copied / 'model.onnx'}: the file of its weights has 1000 bytes, "
        "fewer than the graph reads: it is truncated: copy the directory again"
    )
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (_CPLUSPLUS + "is odd.", "External initializer: B1 is odd."),
        ("/src/a.cc:1 void ort::f(int) const x was false. Say", "x was false. Say"),
        ("plain", "plain"),
        ("x" * 1000, "x" * 240 + " ..."),
    ],
)
def test_noise_is_removed(text: str, reason: str) -> None:
    assert plain_reason(RuntimeError(text)) == reason
