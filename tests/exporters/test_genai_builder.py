"""The model builder: which architectures it supports, what a failure leaves behind, and the files that it writes."""

from __future__ import annotations

import json
import logging
import shutil
import sys
from pathlib import Path

import onnx_ir as ir
import pytest

from lime_edge.errors import ExportError
from lime_edge.exporters.genai_builder import Precision, build_backbone, builds


def test_known_architectures() -> None:
    assert builds("LlamaForCausalLM")
    assert not builds("LlamaForCausal")


def test_a_failure_ends_with_the_builders_output_and_restores_the_process(backbone: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(backbone, tmp_path / "backbone")
    (copy / "config.json").write_text('{"architectures": ["LlamaForCausalLM"], "model_type": "nothing"}', "utf-8")
    root = logging.getLogger()
    before = list(sys.path), list(root.handlers), root.level, root.manager.disable
    with pytest.raises(ExportError, match=r"model builder failed on .*backbone as fp32: ValueError"):
        build_backbone(copy, tmp_path / "out", "fp32")
    assert (list(sys.path), list(root.handlers), root.level, root.manager.disable) == before


@pytest.mark.parametrize("precision", ["fp16", "fp32"])
def test_the_graph_names_no_execution_provider(precision: Precision, backbone: Path, tmp_path: Path) -> None:
    build_backbone(backbone, tmp_path / "out", precision)
    config = json.loads((tmp_path / "out" / "genai_config.json").read_text("utf-8"))
    assert config["model"]["decoder"]["session_options"]["provider_options"] == []
    graph = ir.load(tmp_path / "out" / "model.onnx").graph
    assert {node.domain for node in graph} <= {"", "com.microsoft"}
    assert [value.dtype for value in graph.outputs if value.name == "logits"] == [
        ir.DataType.FLOAT16 if precision == "fp16" else ir.DataType.FLOAT
    ]
