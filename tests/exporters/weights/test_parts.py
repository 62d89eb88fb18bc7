"""Bytes of a graph's weights by part."""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir
import pytest

from lime_edge.exporters import Precision
from lime_edge.exporters.weights.parts import weight_parts
from tests.exporters.export_case import make_export


@pytest.mark.parametrize("precision", ["fp32", "int4"])
@pytest.mark.parametrize("architecture", ["llama", "qwen2", "phi3"])
def test_parts_of_an_export(
    architecture: str, precision: Precision, backbones: dict[str, Path], tmp_path: Path
) -> None:
    exported = make_export(backbones[architecture], tmp_path / "out", precision)
    graph = ir.load(exported.path / "model.onnx").graph
    parts = dict(weight_parts(graph))
    assert tuple(parts.items()) == exported.contract.parts
    stored = [value.const_value for value in graph.initializers.values()]
    assert sum(parts.values()) == sum(tensor.nbytes for tensor in stored if tensor is not None)
    assert list(parts.values()) == sorted(parts.values(), reverse=True)
    tables = {"embedding and output head"} if architecture == "llama" else {"embedding", "output head"}
    gate = {"gate_up_proj"} if architecture == "phi3" and "gate_up_proj" in parts else {"gate_proj", "up_proj"}
    assert set(parts) == tables | gate | {"qkv_proj", "o_proj", "down_proj", "shared adapter", "other"}
    adapter = sum(module.a.size + module.b.size for module in exported.adapter.modules)
    assert parts["shared adapter"] == adapter * (4 if precision == "fp32" else 2)
    if architecture != "llama":
        assert parts["embedding"] == 300 * 64 * (4 if precision == "fp32" else 1) + (precision == "int4") * 300 * 2 * 5
