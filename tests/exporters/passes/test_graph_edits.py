"""The edits that several passes share, on a graph of three nodes."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest

from lime_edge.errors import ExportError
from lime_edge.exporters.passes import graph_edits

TEXT = """<ir_version: 10, opset_import: ["" : 21]> g (float[1, 4] x) => (float[1, 4] y, float[1, 4] z)
{
    middle = Abs(x)
    y = Neg(middle)
    z = Sqrt(middle)
}"""


@pytest.fixture
def model() -> ir.Model:
    loaded: ir.Model = ir.serde.deserialize_model(onnx.parser.parse_model(TEXT))
    for number, node in enumerate(loaded.graph):
        node.name = f"node_{number}"
    return loaded


def test_split_and_concat_give_back_the_value(model: ir.Model) -> None:
    middle = model.graph[0].outputs[0]
    split = graph_edits.make_split(model.graph, middle, [1, 3], "/split")
    concat = graph_edits.make_concat(split.outputs[::-1], "/concat")
    graph_edits.replace_uses(middle, concat.outputs[0], keep=split)
    model.graph.insert_after(model.graph[0], [split, concat])
    session = ort.InferenceSession(ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"])
    y, z = session.run(None, {"x": np.array([[-1, 4, 9, 16]], np.float32)})
    assert y.tolist() == [[-4, -9, -16, -1]]
    assert z.tolist() == [[2, 3, 4, 1]]


def test_uses_are_replaced_except_one(model: ir.Model) -> None:
    absolute, negative, root = model.graph
    new = ir.Value(name="new")
    graph_edits.replace_uses(absolute.outputs[0], new, keep=root)
    assert (negative.inputs[0], root.inputs[0]) == (new, absolute.outputs[0])


def test_neighbours_of_a_value(model: ir.Model) -> None:
    absolute, negative, _ = model.graph
    middle = absolute.outputs[0]
    assert graph_edits.find_consumer(middle, "node_1") is negative
    assert graph_edits.find_consumer(middle, "node_0") is None
    assert graph_edits.producer_of(middle) is absolute
    with pytest.raises(ExportError, match="x is an input of the graph; expected the output of a projection"):
        graph_edits.producer_of(model.graph.inputs[0])
