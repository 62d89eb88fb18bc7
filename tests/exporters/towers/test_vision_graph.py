"""vision.onnx: the same bytes every time, no paths, and how far 8 bits are from fp32."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from lime_edge.exporters.towers.vision_graph import export_tower, quantise_tower
from tests.exporters.towers.tower_case import contract_of, error, family_of, run, torch_model, tower


def test_the_same_bytes_every_time_and_no_paths(tmp_path: Path) -> None:
    family, model = family_of("llava_clip"), torch_model("llava_clip")
    state = {name: value.clone() for name, value in model.state_dict().items()}
    export_tower(model, family, family.probe(model, contract_of("llava_clip")), tmp_path)
    for name in ("vision.onnx", "vision.onnx.data"):
        assert (tmp_path / name).read_bytes() == (tower("llava_clip") / name).read_bytes()
    content = (tmp_path / "vision.onnx").read_bytes()
    assert b"site-packages" not in content
    assert str(Path.cwd()).encode() not in content
    assert all((value == state[name]).all() for name, value in model.state_dict().items())


@pytest.mark.parametrize("name", ["llava_siglip", "qwen2_5_vl"])
def test_eight_bits(name: str, tmp_path: Path) -> None:
    family = family_of(name)
    probe = family.probe(torch_model(name), contract_of(name))
    for file in tower(name).iterdir():
        shutil.copyfile(file, tmp_path / file.name)
    quantise_tower(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["vision.onnx", "vision.onnx.data"]
    kinds = {node.op_type for node in ir.load(tmp_path / "vision.onnx").graph}
    assert "MatMulInteger" in kinds
    exact, rounded = (family.packed(run(path, probe.arrays)) for path in (tower(name), tmp_path))
    assert 1e-4 < error(rounded, exact) < 0.05
    assert np.isfinite(rounded).all()
