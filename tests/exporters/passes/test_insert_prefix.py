"""Soft prefixes on a graph that is only an embedding; tests/method/test_prompt_tuning.py has whole models."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnxruntime.capi.onnxruntime_pybind11_state import InvalidArgument

from lime_edge.contract.module_table import Module, ModuleTable
from lime_edge.contract.routing import Routing
from lime_edge.contract.vector_kinds import PREFIX
from lime_edge.errors import ExportError
from lime_edge.exporters.passes.declare_inputs import DeclareInputs
from lime_edge.exporters.passes.insert_prefix import InsertPrefix
from lime_edge.exporters.passes.quantise_embedding import BLOCK, QuantiseEmbedding, round_table

Array = npt.NDArray[Any]
WIDTH, VOCABULARY, VIRTUAL = 64, 5, 2
FLOAT = ir.DataType.FLOAT
TABLE = np.random.default_rng(0).standard_normal((VOCABULARY, WIDTH)).astype(np.float32)


def embedding(width: int = WIDTH, lookups: int = 1) -> ir.Model:
    """Logits that are the first elements of each token's embedding."""
    nodes = "".join(f"e{i} = Gather(table, input_ids)\n" for i in range(lookups))
    text = f"""<ir_version: 10, opset_import: ["" : 21]>
    g (int64[B, S] input_ids) => (float[B, S, {VOCABULARY}] logits)
    <float[1] table = {{0}}, int64[1] start = {{0}}, int64[1] end = {{{VOCABULARY}}}, int64[1] axis = {{2}}>
    {{
        {nodes}
        logits = Slice(e0, start, end, axis)
    }}"""
    model: ir.Model = ir.serde.deserialize_model(onnx.parser.parse_model(text))
    table = model.graph.initializers["table"]
    table.const_value = ir.tensor(TABLE[:, :width], name="table")
    table.shape = ir.Shape([VOCABULARY, width])
    return model


def insert(model: ir.Model) -> ir.passes.PassResult:
    prefix = Module("embed", WIDTH, VIRTUAL)
    table = ModuleTable((prefix,), 1, PREFIX)
    DeclareInputs(table, Routing(experts=1), FLOAT, FLOAT)(model)
    return InsertPrefix(prefix, table.row_size, FLOAT, FLOAT)(model)


def run(ids: list[list[int]], fed: dict[str, Array] | None = None, model: ir.Model | None = None) -> Array:
    model = model or embedding()
    assert insert(model).modified
    assert not insert(model).modified
    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(ir.to_proto(model).SerializeToString(), options, providers=["CPUExecutionProvider"])
    found: Array = session.run(None, {"input_ids": np.array(ids), **(fed or {})})[0]
    return found


def test_virtual_tokens_are_read_from_the_rows_of_their_skills() -> None:
    bank = np.arange(3 * VIRTUAL * WIDTH, dtype=np.float32).reshape(3, -1)
    found = run([[5, 6, 1], [5, 6, 4]], {"lime.bank": bank, "lime.skill_ids": np.array([[1], [2]])})
    rows = bank.reshape(3, VIRTUAL, WIDTH)[:, :, :5]
    np.testing.assert_array_equal(found[:, :2], rows[1:])
    np.testing.assert_array_equal(found[:, 2], TABLE[[1, 4], :5])


def test_virtual_tokens_beside_a_table_of_8_bits() -> None:
    model = embedding()
    assert QuantiseEmbedding()(model).modified
    values, scales, zeros = round_table(TABLE)
    rounded = (values.reshape(VOCABULARY, -1, BLOCK) - zeros[..., None].astype(np.float32)) * scales[..., None]
    bank = np.arange(2 * VIRTUAL * WIDTH, dtype=np.float32).reshape(2, -1)
    found = run([[5, 6, 4]], {"lime.bank": bank, "lime.skill_ids": np.array([[1]])}, model)
    np.testing.assert_array_equal(found[0, :2], bank[1].reshape(VIRTUAL, WIDTH)[:, :5])
    np.testing.assert_array_equal(found[0, 2], rounded.reshape(TABLE.shape)[4, :5])


def test_without_a_skill_virtual_tokens_are_zeros() -> None:
    found = run([[5, 2]])
    assert not found[0, 0].any()
    np.testing.assert_array_equal(found[0, 1], TABLE[2, :5])


@pytest.mark.parametrize(("token", "skill"), [(7, 1), (5, 2), (5, -1)], ids=["token", "skill", "negative skill"])
def test_ids_that_do_not_exist_are_errors(token: int, skill: int) -> None:
    bank = np.zeros((2, VIRTUAL * WIDTH), np.float32)
    with pytest.raises(InvalidArgument, match="out of data bounds"):
        run([[token]], {"lime.bank": bank, "lime.skill_ids": np.array([[skill]])})


def test_graphs_without_the_embedding_are_refused() -> None:
    with pytest.raises(ExportError, match="looks input_ids up 2 times; expected one embedding"):
        insert(embedding(lookups=2))
    narrow = embedding(width=8)
    narrow.graph[0].outputs[0].shape = ir.Shape(["B", "S", 8])
    with pytest.raises(ExportError, match="embeddings have 8 numbers and the prefix has 64"):
        insert(narrow)
