"""The optional inputs for skills: their defaults, and errors in what is fed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx_ir as ir
import pytest
from onnxruntime.capi.onnxruntime_pybind11_state import InvalidArgument

from lime_edge.contract.module_table import Module, ModuleTable
from lime_edge.contract.routing import Routing
from lime_edge.exporters.passes.declare_inputs import DeclareInputs
from tests.exporters.export_case import (
    make_export,
    prompt,
    run,
)


def test_bad_skills_are_errors(backbones: dict[str, Path], tmp_path: Path) -> None:
    exported = make_export(backbones["llama"], tmp_path / "out", names=("o_proj",))
    session, bank = exported.session(), exported.bank(exported.skills())
    with pytest.raises(InvalidArgument, match="out of data bounds"):
        run(session, prompt(1), bank=bank, skill_ids=exported.ids([[3]]))
    with pytest.raises(InvalidArgument, match="Got invalid dimensions"):
        run(session, prompt(1), bank=bank[:, :-64], skill_ids=exported.ids([[1]]))


@pytest.mark.parametrize("window", [1, 3])
def test_without_values_there_is_one_skill_of_zeros(window: int) -> None:
    table = ModuleTable((Module("m", 10, 2),), 2, ("gain", "rank"))
    model = ir.Model(ir.Graph([], [], nodes=[], opset_imports={"": 21}, name="empty"), ir_version=10)
    declare = DeclareInputs(table, Routing(experts=2, window=window), ir.DataType.FLOAT, ir.DataType.FLOAT16)
    assert declare(model).modified
    assert not declare(model).modified
    found: dict[str, Any] = {}
    for value in model.graph.inputs:
        assert value.const_value is not None
        array = value.const_value.numpy()
        found[str(value.name)] = (value.dtype, array.shape, bool(array.any()))
    expected = {
        "lime.bank": (ir.DataType.FLOAT16, (1, table.row_size), False),
        "lime.skill_ids": (ir.DataType.INT64, (1, 1), False),
        "lime.past_evidence": (ir.DataType.FLOAT, (1, 2, 3), False),
    }
    assert found == {name: expected[name] for name in list(expected)[: 2 + (window > 1)]}
