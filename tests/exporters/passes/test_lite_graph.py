"""The lite graph: one row of vectors as a required input, standard operators only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import onnxruntime as ort
import pytest

from lime_edge.contract.names import BANK, DOMAIN, LOGITS_FROM, ROW, SKILL_IDS
from lime_edge.errors import ExportError
from lime_edge.exporters.passes.lite_graph import WAYS, LiteGraph
from lime_edge.skills.package import read_skill
from tests.support.runtime_models import HEAD, contract, exported
from tests.support.web_models import converted, lite_skill, source

Array = npt.NDArray[Any]
IDS = np.random.default_rng(0).integers(3, 300, (1, 12))


def run(path: Path, **fed: Array) -> Array:
    """Logits of `IDS`, with what else the graph requires."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    feeds = {"input_ids": IDS, "attention_mask": np.ones_like(IDS), **fed}
    for value in session.get_inputs():
        if value.name.startswith("past_key_values"):
            feeds[value.name] = np.zeros((1, value.shape[1], 0, HEAD), np.float32)
    logits: Array = session.run(["logits"], feeds)[0][0]
    return logits


def test_a_skill_has_the_effect_that_it_has_on_the_usual_graph(tmp_path: Path) -> None:
    table = contract(source()).table
    skill = read_skill(lite_skill(tmp_path / "one.lime"))
    bank, ids = table.bank([skill.tensors])
    expected = run(source() / "model.onnx", **{BANK: bank, SKILL_IDS: ids[1:, None]})
    base = run(source() / "model.onnx")
    start = {LOGITS_FROM: np.array([0])}
    found = run(converted() / "model.onnx", **{ROW: bank[1:]}, **start)
    assert np.abs(expected - base).max() > 0.1
    np.testing.assert_allclose(found, expected, atol=1e-4)
    np.testing.assert_array_equal(run(converted() / "model.onnx", **{ROW: bank[:1]}, **start), base)


def test_no_operator_of_ours_and_no_wide_split_is_left() -> None:
    model = ir.load(converted() / "model.onnx")
    assert not [node for node in model.graph if node.domain == DOMAIN]
    assert not model.functions
    assert DOMAIN not in model.graph.opset_imports
    splits = [node for node in model.graph if node.op_type == "Split" and ROW in str(node.name)]
    assert splits
    assert max(len(node.outputs) for node in splits) <= WAYS
    assert {value.name for value in model.graph.inputs} >= {ROW, LOGITS_FROM}
    assert not {BANK, SKILL_IDS} & {value.name for value in model.graph.inputs}


def test_a_second_run_changes_nothing() -> None:
    model = ir.load(converted() / "model.onnx")
    assert not LiteGraph(contract(source()).table.row_size)(model).modified


def test_kinds_that_need_the_adapter_are_refused() -> None:
    model = ir.load(exported() / "model.onnx")
    before = [node.name for node in model.graph]
    with pytest.raises(ExportError, match="expert and rank vectors; expected gain and shift"):
        LiteGraph(1)(model)
    assert [node.name for node in model.graph] == before


def test_a_window_is_refused() -> None:
    with pytest.raises(ExportError, match="its routing has a window"):
        LiteGraph(1)(ir.load(exported(window=3) / "model.onnx"))
