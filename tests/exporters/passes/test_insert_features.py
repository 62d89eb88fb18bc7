"""Features on a graph that is only an embedding; tests/exporters/test_vision_export.py has whole models."""

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
from lime_edge.exporters.passes.insert_features import InsertFeatures
from lime_edge.exporters.passes.insert_prefix import InsertPrefix

Array = npt.NDArray[Any]
WIDTH, VOCABULARY, SCALE = 64, 5, 8
FLOAT = ir.DataType.FLOAT
TABLE = np.random.default_rng(0).standard_normal((VOCABULARY, WIDTH)).astype(np.float32)
FEATURES = np.random.default_rng(1).standard_normal((3, WIDTH)).astype(np.float32)


def embedding(kind: str = "float", scaled: bool = False) -> ir.Model:
    """A model whose logits are the embeddings, of `kind`, times `SCALE` if they are scaled."""
    scale = "scaled = Mul(known, scale)" if scaled else "scaled = Identity(known)"
    text = f"""<ir_version: 10, opset_import: ["" : 21]>
    g (int64[B, S] input_ids) => ({kind}[B, S, {WIDTH}] logits)
    <{kind}[1] table = {{0}}, {kind}[1] scale = {{{SCALE}}}>
    {{
        known = Gather(table, input_ids)
        {scale}
        logits = Identity(scaled)
    }}"""
    model: ir.Model = ir.serde.deserialize_model(onnx.parser.parse_model(text))
    table, dtype = model.graph.initializers["table"], np.dtype(np.float32 if kind == "float" else np.float16)
    table.const_value = ir.tensor(TABLE.astype(dtype), name="table")
    table.shape = ir.Shape(TABLE.shape)
    for node in model.graph:
        node.outputs[0].shape = ir.Shape(["B", "S", WIDTH])
        node.outputs[0].type = ir.TensorType(ir.DataType.from_numpy(dtype))
        if node.op_type == "Mul":
            node.name = "/model/embed_tokens/Mul"
    return model


def run(model: ir.Model, ids: list[list[int]], **fed: Array) -> Array:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(ir.to_proto(model).SerializeToString(), options, providers=["CPUExecutionProvider"])
    feed = {"input_ids": np.array(ids)} | {f"lime.{name}": value for name, value in fed.items()}
    found: Array = session.run(None, feed)[0]
    return found


def insert(model: ir.Model) -> ir.Model:
    assert InsertFeatures()(model).modified
    assert not InsertFeatures()(model).modified
    return model


def test_features_take_the_places_that_are_asked_for() -> None:
    model = insert(embedding())
    ids = [[0, 1, 2], [3, 4, 0]]
    assert np.array_equal(run(model, ids), run(embedding(), ids))
    found = run(model, ids, features=FEATURES, feature_ids=np.array([[-1, 2, -1], [0, 1, -1]]))
    assert np.array_equal(found[0], [TABLE[0], FEATURES[2], TABLE[2]])
    assert np.array_equal(found[1], [FEATURES[0], FEATURES[1], TABLE[0]])
    assert np.array_equal(run(model, ids, features=FEATURES), run(embedding(), ids))  # no token asks for one
    same = run(model, ids, features=FEATURES, feature_ids=np.array([[1]]))
    assert np.array_equal(same, np.broadcast_to(FEATURES[1], same.shape))


def test_features_are_not_scaled_like_embeddings() -> None:
    found = run(insert(embedding(scaled=True)), [[1, 2]], features=FEATURES, feature_ids=np.array([[-1, 0]]))
    assert np.array_equal(found[0], [TABLE[1] * np.float32(SCALE), FEATURES[0]])


def test_half_precision() -> None:
    model = insert(embedding("float16"))
    found = run(model, [[1, 2]], features=FEATURES, feature_ids=np.array([[-1, 0]]))
    assert found.dtype == np.float16
    assert np.array_equal(found[0], [TABLE[1].astype(np.float16), FEATURES[0].astype(np.float16)])


def test_before_a_soft_prefix() -> None:
    model = embedding()
    prefix = Module("embed", WIDTH, 1)
    table = ModuleTable((prefix,), 1, PREFIX)
    DeclareInputs(table, Routing(experts=1), FLOAT, FLOAT)(model)
    model.graph.outputs[0].shape = ir.Shape(["B", "S", VOCABULARY])  # where the prefix reads the vocabulary's size
    insert(model)
    assert InsertPrefix(prefix, table.row_size, FLOAT, FLOAT)(model).modified
    bank = np.stack([np.zeros(WIDTH), np.ones(WIDTH)]).astype(np.float32)
    fed = {"bank": bank, "skill_ids": np.array([[1]]), "features": FEATURES, "feature_ids": np.array([[-1, -1, 2]])}
    assert np.array_equal(run(model, [[VOCABULARY, 1, 1]], **fed)[0], [np.ones(WIDTH), TABLE[1], FEATURES[2]])


@pytest.mark.parametrize("row", [3, 2**40])
def test_rows_that_do_not_exist_are_errors(row: int) -> None:
    with pytest.raises(InvalidArgument, match="out of data bounds"):
        run(insert(embedding()), [[0]], features=FEATURES, feature_ids=np.array([[row]]))


def test_other_graphs_are_refused() -> None:
    without = embedding()
    next(iter(without.graph)).outputs[0].shape = None
    with pytest.raises(ExportError, match="width of the embeddings are not in the graph"):
        insert(without)
    renamed = embedding()
    renamed.graph.inputs[0].name = "inputs_embeds"
    with pytest.raises(ExportError, match="looks input_ids up 0 times; expected one embedding"):
        insert(renamed)
