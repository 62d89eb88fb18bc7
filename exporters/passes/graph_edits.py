"""Graph edits that several passes share: new initializers and nodes, and looking up or replacing uses of a value."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from lime_edge.errors import ExportError

_LOOKUPS = ("Gather", "GatherBlockQuantized")


def add_initializer(graph: ir.Graph, name: str, array: npt.NDArray[np.generic]) -> ir.Value:
    """Register an array as an initializer of the graph."""
    tensor = ir.tensor(np.ascontiguousarray(array), name=name)
    value = ir.Value(name=name, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype), const_value=tensor)
    graph.register_initializer(value)
    return value


def make_split(graph: ir.Graph, value: ir.Value, sizes: Sequence[int], name: str) -> ir.Node:
    """A node that splits a value along its last axis. Adds the sizes to the graph, but not the node."""
    lengths = add_initializer(graph, f"{name}/lengths", np.array(sizes, np.int64))
    outputs = [ir.Value(name=f"{name}/output_{i}", type=value.type) for i in range(len(sizes))]
    return ir.Node("", "Split", [value, lengths], [ir.AttrInt64("axis", -1)], outputs=outputs, name=name)


def make_concat(values: Sequence[ir.Value], name: str) -> ir.Node:
    """A node that concatenates values along their last axis; not yet in the graph."""
    output = ir.Value(name=f"{name}/output_0", type=values[0].type)
    return ir.Node("", "Concat", values, [ir.AttrInt64("axis", -1)], outputs=[output], name=name)


def replace_uses(old: ir.Value, new: ir.Value, keep: ir.Node) -> None:
    """Replace `old` by `new` in all nodes that use it, except `keep`, the node that computes `new` from `old`."""
    for node, index in tuple(old.uses()):
        if node is not keep:
            node.replace_input_with(index, new)


def find_consumer(value: ir.Value, name: str) -> ir.Node | None:
    """The node with this name that uses a value."""
    return next((node for node in value.consumers() if node.name == name), None)


def producer_of(value: ir.Value) -> ir.Node:
    """The node that computes a value.

    Raises:
        ExportError: No node computes it, because it is an input of the graph.
    """
    node = value.producer()
    if node is None:
        raise ExportError(f"{value.name} is an input of the graph; expected the output of a projection")
    return node


def find_embedding(graph: ir.Graph) -> tuple[ir.Node, ir.Value]:
    """The node that looks input_ids up, and input_ids.

    Raises:
        ExportError: There is not exactly one.
    """
    ids = next((value for value in graph.inputs if value.name == "input_ids"), None)
    lookups = [node for node in ids.consumers() if node.op_type in _LOOKUPS] if ids is not None else []
    if ids is None or len(lookups) != 1:
        raise ExportError(f"the graph looks input_ids up {len(lookups)} times; expected one embedding")
    return lookups[0], ids


def scaled_embedding(embedded: ir.Value) -> ir.Value:
    """The embeddings, after the scale that some models' embedding modules apply."""
    users = tuple(embedded.consumers())
    if len(users) == 1 and users[0].op_type == "Mul" and "/embed_tokens/" in (users[0].name or ""):
        return users[0].outputs[0]
    return embedded
