"""The files of a model directory against lime.json: missing, truncated, grown, changed, unreadable."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from lime_edge.contract.model import ModelContract
from lime_edge.contract.model_files import file_digest, file_faults
from tests.contract.test_model import CONTRACT

DATA = {"model.onnx": b"graph", "model.onnx.data": bytes(2000)}


@pytest.fixture
def contract(tmp_path: Path) -> ModelContract:
    for name, data in DATA.items():
        (tmp_path / name).write_bytes(data)
    files = tuple((name, file_digest(tmp_path / name)) for name in DATA)
    return replace(CONTRACT, files=files, sizes=tuple((name, len(data)) for name, data in DATA.items()))


def test_sound_files(contract: ModelContract, tmp_path: Path) -> None:
    assert file_faults(tmp_path, contract) == []


def test_sizes_are_compared_before_anything_is_read(contract: ModelContract, tmp_path: Path) -> None:
    os.truncate(tmp_path / "model.onnx.data", 12)
    (tmp_path / "model.onnx").write_bytes(b"graph.")
    faults = [
        "model.onnx has 6 bytes; expected 5: the file was changed: copy the directory again",
        "model.onnx.data has 12 bytes; expected 2,000: the file is truncated: copy the directory again",
    ]
    assert file_faults(tmp_path, contract, weights=False) == faults
    assert file_faults(tmp_path, contract) == faults


def test_models_without_sizes(contract: ModelContract, tmp_path: Path) -> None:
    old = replace(contract, sizes=())
    os.truncate(tmp_path / "model.onnx.data", 12)
    assert file_faults(tmp_path, old, weights=False) == []
    (fault,) = file_faults(tmp_path, old)
    assert fault.startswith("model.onnx.data has digest")
    assert fault.endswith("the file was changed or damaged")


def test_a_changed_byte(contract: ModelContract, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"grapH")
    (tmp_path / "model.onnx.data").write_bytes(bytes(1999) + b"x")
    assert [fault.split()[0] for fault in file_faults(tmp_path, contract, weights=False)] == ["model.onnx"]
    assert [fault.split()[0] for fault in file_faults(tmp_path, contract)] == ["model.onnx", "model.onnx.data"]


def test_files_that_cannot_be_read(contract: ModelContract, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model.onnx").unlink()
    (tmp_path / "model.onnx").mkdir()
    assert file_faults(tmp_path, contract) == ["model.onnx is missing"]
    monkeypatch.setattr(Path, "open", lambda *_: (_ for _ in ()).throw(PermissionError(13, "Permission denied")))
    assert file_faults(tmp_path, contract)[1] == "model.onnx.data cannot be read: Permission denied"
    outside = replace(contract, files=(("../x", "0"),))
    assert file_faults(tmp_path, outside) == ["lime.json names '../x'; expected a plain file name"]
