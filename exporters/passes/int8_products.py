"""Rounds block-quantised products to 8-bit integers, for runtimes that have no fast kernel for blocks.

WebAssembly has none: onnxruntime dequantises every weight of a MatMulNBits for every token there, but multiplies 8-bit
integers directly.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from lime_edge.exporters.weights.int4_weights import dequantised

from .graph_edits import add_initializer, replace_uses

_LEVELS = 127
_ZERO = 128  # zero point of the activations, whose type is uint8: kernels for WebAssembly multiply no other
_FINER = 254  # the second 8 bits, of at most half a step of the first, from -127 to 127
_LEAST = 1e-20  # smallest scale: a token of zeros must not divide by zero


class Int8Products(ir.passes.InPlacePass):
    """Multiplies activations of twice 8 bits by 8-bit weights. The batch must be one row.

        x [1, S, D] -> MatMulNBits(x, values, scales, zero points) -> y
    ->  x -> scale = max |x| / 127 of each token, u = x / scale
             q = [Round(u), Round(254 (u - Round(u)))] + 128, uint8 [2, S, D]
             MatMulIntegerToFloat(q, weights, 1, scales of columns, 128) -> Mul([scale, scale / 254]) -> ReduceSum -> y

    8 bits of activations are not enough: a token has channels a hundred times as large as others, and the answers of
    SmolLM2-135M change. The second 8 bits carry what the first round away. They are a second row of the same product,
    so the weights are still read once. Weights are symmetric, with one scale for each column.

    The scale of a token depends on that token alone, so its result does not depend on the tokens that run together with
    it. Products of the same x share its rounding.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        graph = model.graph
        products = [node for node in graph if (node.domain, node.op_type) == ("com.microsoft", "MatMulNBits")]
        rounded: dict[ir.Value, tuple[ir.Value, ir.Value]] = {}
        for node in products:
            x = node.inputs[0]
            assert x is not None  # ONNX requires it
            if x not in rounded:
                rounded[x] = _round_activations(graph, x, node)
            _replace(graph, node, *rounded[x])
        for name in [name for name, value in graph.initializers.items() if not value.uses()]:
            if not graph.initializers[name].is_graph_input():
                del graph.initializers[name]
        return ir.passes.PassResult(model, modified=bool(products))


def round_weights(weight: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
    """Weight [H, D] as integers [D, H], and the scale of each column [H]; errors are at most half a scale."""
    scale = np.maximum(np.abs(weight).max(axis=1), np.float32(_LEAST)) / np.float32(_LEVELS)
    return np.ascontiguousarray(np.rint(weight / scale[:, None]).astype(np.int8).T), scale


def _round_activations(graph: ir.Graph, x: ir.Value, before: ir.Node) -> tuple[ir.Value, ir.Value]:
    """Nodes that compute q uint8 [2, S, D] and its scales [2, S, 1]."""
    nodes: list[ir.Node] = []

    def add(op: str, *inputs: ir.Value, **attributes: int) -> ir.Value:
        name = f"{before.name}/round/{len(nodes)}/{op}"
        output = ir.Value(name=f"{name}/output_0")
        listed = [ir.AttrInt64(key, value) for key, value in attributes.items()]
        nodes.append(ir.Node("", op, inputs, listed, outputs=[output], name=name))
        return output

    def real(key: str, value: float) -> ir.Value:
        return _constant(graph, key, np.array(value, np.float32))

    axis = _constant(graph, "axis", np.array([-1], np.int64))
    largest = add("ReduceMax", add("Abs", x), axis, keepdims=1)
    scale = add("Max", add("Mul", largest, real("inverse", 1 / _LEVELS)), real("least", _LEAST))
    u = add("Div", x, scale)
    first = add("Round", u)
    second = add("Round", add("Mul", add("Sub", u, first), real("finer", _FINER)))
    both = add("Concat", first, second, axis=0)
    q = add("Cast", add("Add", both, real("middle", _ZERO)), to=ir.DataType.UINT8.value)
    scales = add("Concat", scale, add("Mul", scale, real("coarser", 1 / _FINER)), axis=0)
    graph.insert_before(before, nodes)
    return q, scales


def _replace(graph: ir.Graph, node: ir.Node, q: ir.Value, scales: ir.Value) -> None:
    weight, columns = round_weights(dequantised(node))
    inputs = [
        q,
        add_initializer(graph, f"{node.name}.weight_int8", weight),
        _constant(graph, "one", np.array(1, np.float32)),
        add_initializer(graph, f"{node.name}.scale", columns),
        _constant(graph, "zero_point", np.array(_ZERO, np.uint8)),
    ]
    old = node.outputs[0]
    raw = ir.Value(name=f"{node.name}/int8/output_0")
    scaled = ir.Value(name=f"{node.name}/scaled/output_0")
    out = ir.Value(name=f"{node.name}/sum/output_0", type=old.type, shape=old.shape)
    rows = _constant(graph, "rows", np.array([0], np.int64))
    new = [
        ir.Node("com.microsoft", "MatMulIntegerToFloat", inputs, outputs=[raw], name=f"{node.name}/int8"),
        ir.Node("", "Mul", [raw, scales], outputs=[scaled], name=f"{node.name}/scaled"),
        ir.Node("", "ReduceSum", [scaled, rows], [ir.AttrInt64("keepdims", 1)], outputs=[out], name=f"{node.name}/sum"),
    ]
    graph.insert_after(node, new)
    replace_uses(old, out, keep=node)
    if old in graph.outputs:
        name, old.name = old.name, f"{old.name}/blocks"
        out.name = name
        graph.outputs[graph.outputs.index(old)] = out
    graph.remove(node, safe=True)


def _constant(graph: ir.Graph, name: str, array: npt.NDArray[np.generic]) -> ir.Value:
    """An initializer that all products share."""
    key = f"lime.int8.{name}"
    return graph.initializers[key] if key in graph.initializers else add_initializer(graph, key, array)
