"""Adapting a whole decoder graph: the order of its modules, a second run, and adapters that do not fit it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from lime_edge.contract.routing import Routing
from lime_edge.errors import ExportError
from lime_edge.exporters import export
from lime_edge.exporters.adapt_graph import adapt_graph
from lime_edge.exporters.genai_builder import build_backbone
from lime_edge.exporters.weights.projections import module_place
from tests.exporters.export_case import (
    EVERY,
    make_adapter,
    make_export,
    replaced,
)


def test_modules_are_listed_in_graph_order(backbones: dict[str, Path], tmp_path: Path) -> None:
    exported = make_export(backbones["llama"], tmp_path / "out")
    order = ("q", "k", "v", "o", "gate", "up", "down")
    names = [(i, f"{part}_proj") for i in range(2) for part in order]
    assert [module_place(m.name) for m in exported.contract.table.modules] == names
    nodes = [node for node in ir.load(exported.path / "model.onnx").graph if node.domain == "ai.lime"]
    parts = [size for node in nodes for size in node.attributes["parts"].as_ints()]
    assert parts == [m.out_features for m in exported.contract.table.modules]
    offsets = [node.attributes["bank_offset"].as_int() for node in nodes]
    firsts = {exported.contract.table.offsets["expert", m.name] for m in exported.contract.table.modules}
    assert offsets == sorted(offsets)
    assert set(offsets) < firsts


@pytest.mark.parametrize("names", [EVERY, ("q_proj", "v_proj")], ids=["every", "some"])
@pytest.mark.parametrize("architecture", ["llama", "phi3"])
def test_a_second_run_of_the_surgeries_changes_nothing(
    architecture: str, names: tuple[str, ...], backbones: dict[str, Path], tmp_path: Path
) -> None:
    names = names if architecture == "llama" else EVERY
    adapter = make_adapter(backbones[architecture], names, routing=Routing(experts=2, window=2))
    build_backbone(backbones[architecture], tmp_path / "plain", "fp32")
    model = ir.load(tmp_path / "plain" / "model.onnx")
    table = adapt_graph(model, adapter)
    once = ir.to_proto(model).SerializeToString(deterministic=True)
    assert adapt_graph(model, adapter) == table
    assert ir.to_proto(model).SerializeToString(deterministic=True) == once


def test_gain_only_modules_of_a_shared_node_are_refused(backbone: Path, tmp_path: Path) -> None:
    with pytest.raises(ExportError) as caught:
        export(make_adapter(backbone, gain_only=("q_proj",)), backbone, tmp_path / "out", "fp32")
    names = ", ".join(f"model.layers.0.self_attn.{part}_proj" for part in "qkv")
    assert caught.value.faults[0] == f"{names} are one node of the graph: make all of them gain-only, or none"
    assert not list(tmp_path.iterdir())


def test_numbers_beyond_half_precision_are_refused(backbone: Path, tmp_path: Path) -> None:
    adapter = make_adapter(backbone, ("o_proj",))
    large = replaced(adapter, b=adapter.modules[0].b * np.float32(1e6))
    with pytest.raises(ExportError, match=r"exceeds 6.55e\+04, the largest FLOAT16"):
        export(large, backbone, tmp_path / "out", "fp16")
    assert not list(tmp_path.iterdir())
    export(large, backbone, tmp_path / "out", "fp32")
