"""Inputs lose their defaults, so that no runtime can leave them out."""

from __future__ import annotations

import onnx_ir as ir
import onnxruntime as ort

from lime_edge.contract.names import BANK, LOGITS_FROM, SKILL_IDS
from lime_edge.exporters.passes.require_inputs import RequireInputs
from tests.support.runtime_models import exported
from tests.support.web_models import converted


def test_optional_inputs_become_required() -> None:
    model = ir.load(exported() / "model.onnx")
    assert RequireInputs()(model).modified
    names = {value.name for value in model.graph.inputs}
    assert names >= {BANK, SKILL_IDS, LOGITS_FROM}
    assert not names & model.graph.initializers.keys()
    assert not RequireInputs()(model).modified


def test_a_session_lists_them_all() -> None:
    session = ort.InferenceSession(converted() / "model.onnx", providers=["CPUExecutionProvider"])
    assert not session.get_overridable_initializers()
    assert LOGITS_FROM in {value.name for value in session.get_inputs()}
