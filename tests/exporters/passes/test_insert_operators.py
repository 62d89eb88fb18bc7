"""The inserted nodes: gain-only modules, the product that a node replaces, and blocks with padding."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from lime_edge.contract.module_table import Module, ModuleTable
from lime_edge.contract.routing import Routing
from lime_edge.errors import ExportError
from lime_edge.exporters.passes.insert_operators import InsertOperators
from lime_edge.runtime.native import operators
from tests.exporters.export_case import (
    TOLERANCE,
    error,
    make_export,
    make_session,
    oracle,
    prompt,
    run,
)


def test_a_block_that_its_vectors_do_not_fill(backbones: dict[str, Path], tmp_path: Path) -> None:
    routing = Routing(experts=1)  # 96 of 128 floats
    exported = make_export(backbones["llama"], tmp_path / "out", names=("gate_proj",), kinds=("gain",), routing=routing)
    skills = exported.skills(1)
    found = run(exported.session(), prompt(1), bank=exported.bank(skills), skill_ids=exported.ids([[1]]))["logits"]
    assert error(found, oracle(exported, prompt(1), [*skills])) < TOLERANCE


@pytest.mark.parametrize("native", [False, True], ids=["function", "native"])
@pytest.mark.parametrize("routing", [Routing(experts=1), Routing(experts=3, window=2)], ids=["one", "routed"])
def test_the_gain_alone_of_some_projections(
    routing: Routing, native: bool, backbones: dict[str, Path], tmp_path: Path
) -> None:
    names, kinds = ("o_proj", "up_proj", "down_proj"), ("expert", "gain", "shift", "rank")
    given: dict[str, Any] = {"names": names, "kinds": kinds, "routing": routing}
    whole = make_export(backbones["llama"], tmp_path / "whole", **given)
    exported = make_export(backbones["llama"], tmp_path / "out", **given, gain_only=("up_proj", "down_proj"))
    table = exported.contract.table
    assert table.digest == whole.contract.table.digest  # skills without more than the gain fit both
    numbers = sum(math.ceil(m.out_features / 64) * 64 for m in table.modules if m.name in table.gain_only)
    full = sum(math.ceil((3 * m.out_features + m.rank) / 64) * 64 for m in table.modules if "o_proj" in m.name)
    assert table.segment == numbers + full < whole.contract.table.segment
    model = ir.load(exported.path / "model.onnx")
    assert {node.op_type for node in model.graph if node.domain == "ai.lime"} == {
        "LimeLinear1",
        "LimeGainTimes1",
        "LimeGain1",
    }
    assert not [node for node in model.graph if str(node.name).endswith("/mlp/Mul")]  # the node of up replaced it

    library = operators.installed().library if native else None
    assert (library is None) is not native
    skills, ids = exported.skills(), exported.ids([[1], [2], [0]])
    found = run(make_session(exported.path, library=library), prompt(3), bank=exported.bank(skills), skill_ids=ids)
    assert error(found["logits"], oracle(exported, prompt(3), [*skills, None])) < TOLERANCE
    same = run(whole.session(), prompt(3), bank=whole.bank(skills), skill_ids=ids)
    assert error(found["logits"], same["logits"].astype(np.float64)) < TOLERANCE
    assert found["logits"][2].tobytes() == same["logits"][2].tobytes()  # the base, bit for bit


def test_an_older_opset_is_refused() -> None:
    graph = ir.Graph([], [], nodes=[], opset_imports={"": 20}, name="old")
    table = ModuleTable((Module("m", 10, 2),), 1, ("gain",))
    insert = InsertOperators([], table, Routing(experts=1), ir.DataType.FLOAT, ir.DataType.FLOAT)
    with pytest.raises(ExportError, match="uses opset 20; expected 21 or later"):
        insert.call(ir.Model(graph, ir_version=10))
