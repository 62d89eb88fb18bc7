"""The writer of function bodies: shared constants, deterministic names, and attributes of the calling node."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import onnxruntime as ort

from lime_edge.exporters.operators.function_body import Body


def weighted() -> Body:
    """y = x * factor + the sum of the list `numbers` + 2 + 2."""
    body = Body(["x"], ir.DataType.FLOAT)
    factor = body("Cast", body.attribute("factor"), to=ir.DataType.FLOAT)
    numbers = body("ReduceSum", body.attribute("numbers", many=True), keepdims=0)
    total = body("Add", body("Mul", body.inputs["x"], factor), body("Cast", numbers, to=ir.DataType.FLOAT))
    body("Add", body("Add", total, body.real(2)), body.real(2))
    return body


def test_equal_constants_are_one_node() -> None:
    body = Body([], ir.DataType.FLOAT16)
    assert body.real([1, 2]) is body.real([1, 2])
    assert body.real(1) is not body.real([1])
    assert body.whole(1) is not body.real(1)
    assert [value.const_value for value in (body.real(1),)] == [None]  # a node, not an initializer
    types = [node.attributes["value"].as_tensor().dtype for node in body.nodes]
    assert types == [ir.DataType.FLOAT16, ir.DataType.FLOAT16, ir.DataType.FLOAT16, ir.DataType.INT64]


def test_names_are_the_same_every_time() -> None:
    names = [[str(value.name) for node in weighted().nodes for value in node.outputs] for _ in range(2)]
    assert names[0] == names[1]
    assert len(set(names[0])) == len(names[0])


def test_a_node_sets_the_attributes() -> None:
    body = weighted()
    declared = [ir.Attr(name, ir.AttributeType.UNDEFINED, None) for name in ("factor", "numbers")]
    function = body.function("test", "Weighted", {"y": body.nodes[-1].outputs[0]}, declared, 21)
    values = [ir.Value(name=name, type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape([1])) for name in ("in", "out")]
    attributes = [ir.AttrInt64("factor", 3), ir.AttrInt64s("numbers", [10, 20])]
    node = ir.Node("test", "Weighted", values[:1], attributes, outputs=values[1:])
    graph = ir.Graph(values[:1], values[1:], nodes=[node], opset_imports={"": 21, "test": 1}, name="one")
    model = ir.to_proto(ir.Model(graph, ir_version=10, functions=[function])).SerializeToString()
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    assert session.run(None, {"in": np.ones(1, np.float32)})[0].tolist() == [3 + 30 + 4]
