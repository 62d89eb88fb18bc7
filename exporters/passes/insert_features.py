"""Adds features of pictures to a graph: where a token stands for a part of a picture, its embedding is that feature."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from lime_edge.contract.names import FEATURE_IDS, FEATURES
from lime_edge.errors import ExportError

from .graph_edits import add_initializer, find_embedding, scaled_embedding

_OUT = f"/{FEATURES}/Where"


class InsertFeatures(ir.passes.InPlacePass):
    """Takes rows of an input instead of embeddings, where asked to.

        input_ids -> embedding -> rest
    ->  input_ids -> embedding -> Where(lime.feature_ids >= 0, lime.features[lime.feature_ids], .) -> rest

    lime.features is float32 [F, H], lime.feature_ids int64 [B or 1, S or 1]; -1 is text. Both are optional: with
    nothing fed, every token is text, and the logits stay the same, bit for bit. Where a feature is taken, the input id
    must be valid, but does not matter. Refuses a graph without exactly one embedding of input_ids; a soft prefix,
    inserted before, hides it.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        graph = model.graph
        if any(node.name == _OUT for node in graph):
            return ir.passes.PassResult(model, modified=False)
        known = scaled_embedding(find_embedding(graph)[0].outputs[0])
        width = known.shape[-1] if known.shape is not None else None
        if not isinstance(width, int) or known.dtype is None:
            raise ExportError("type and width of the embeddings are not in the graph; expected [B, S, H]")
        features = _input(graph, FEATURES, np.zeros((1, width), np.float32), ["lime_features", width])
        ids = _input(graph, FEATURE_IDS, np.full((1, 1), -1, np.int64), ["lime_feature_rows", "lime_feature_tokens"])
        nodes, replaced = self._nodes(graph, features, ids, known, known.dtype)
        producer = known.producer()
        assert producer is not None  # the embedding or its scale
        graph.insert_after(producer, nodes)
        for user, index in tuple(known.uses()):
            if user not in nodes:
                user.replace_input_with(index, replaced)
        return ir.passes.PassResult(model, modified=True)

    def _nodes(
        self, graph: ir.Graph, features: ir.Value, ids: ir.Value, known: ir.Value, dtype: ir.DataType
    ) -> tuple[list[ir.Node], ir.Value]:
        """The nodes to insert, and the value [B, S, H] that replaces the embeddings."""
        nodes: list[ir.Node] = []

        def add(op: str, *inputs: ir.Value, **attributes: int) -> ir.Value:
            name = f"/{FEATURES}/{op}"
            output = ir.Value(name=f"{name}/output_0")
            listed = [ir.AttrInt64(key, value) for key, value in attributes.items()]
            nodes.append(ir.Node("", op, inputs, listed, outputs=[output], name=name))
            return output

        zero, last = (add_initializer(graph, f"{FEATURES}/{n}", np.array([n], np.int64)) for n in (0, -1))
        is_feature = add("Unsqueeze", add("GreaterOrEqual", ids, zero), last)  # [B, S, 1]
        read = add("Gather", features, add("Max", ids, zero))  # [B, S, H]
        if dtype != ir.DataType.FLOAT:
            read = add("Cast", read, to=int(dtype))
        replaced = add("Where", is_feature, read, known)
        replaced.type, replaced.shape = known.type, known.shape
        return nodes, replaced


def _input(graph: ir.Graph, name: str, default: npt.NDArray[np.generic], shape: list[str | int]) -> ir.Value:
    """An optional graph input."""
    value = ir.Value(name=name, shape=ir.Shape(shape), const_value=ir.tensor(default, name=name))
    value.type = ir.TensorType(ir.DataType.from_numpy(default.dtype))
    graph.inputs.append(value)
    graph.register_initializer(value)
    return value
