"""Graph surgeries that turn a builder's decoder graph into one with skills, one class each.

Every pass states what it needs as faults before it touches anything, and changes nothing when it
has run already. With nothing fed to the new inputs the graph computes what it computed before, bit
for bit. Knows nothing of files.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from lime_edge.errors import ExportError


def initializer(graph: ir.Graph, name: str, array: npt.NDArray[np.generic]) -> ir.Value:
    tensor = ir.tensor(np.ascontiguousarray(array), name=name)
    value = ir.Value(name=name, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype), const_value=tensor)
    graph.register_initializer(value)
    return value


def split_node(graph: ir.Graph, value: ir.Value, sizes: Sequence[int], name: str) -> ir.Node:
    lengths = initializer(graph, f"{name}/lengths", np.array(sizes, np.int64))
    outputs = [ir.Value(name=f"{name}/output_{i}", type=value.type) for i in range(len(sizes))]
    return ir.Node("", "Split", [value, lengths], [ir.AttrInt64("axis", -1)], outputs=outputs, name=name)


def concat_node(values: Sequence[ir.Value], name: str) -> ir.Node:
    output = ir.Value(name=f"{name}/output_0", type=values[0].type)
    return ir.Node("", "Concat", values, [ir.AttrInt64("axis", -1)], outputs=[output], name=name)


def take_over(old: ir.Value, new: ir.Value, but: ir.Node) -> None:
    """Let everything that used `old` use `new`, except the node that makes `new` from it."""
    for node, index in tuple(old.uses()):
        if node is not but:
            node.replace_input_with(index, new)


def consumer(value: ir.Value, name: str) -> ir.Node | None:
    """The node of that name that uses a value."""
    return next((node for node in value.consumers() if node.name == name), None)


def producer(value: ir.Value) -> ir.Node:
    node = value.producer()
    if node is None:
        raise ExportError(f"{value.name} is an input of the graph; expected the output of a projection")
    return node
