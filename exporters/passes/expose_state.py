"""Adds the output by which a skill is chosen: the state of every token after one of the layers."""

from __future__ import annotations

import re

import onnx_ir as ir

from lime_edge.contract.names import STATE
from lime_edge.errors import ExportError

_SKIP = ("SkipSimplifiedLayerNormalization", "SkipLayerNormalization")  # their last output is the sum of two inputs
_PLAIN = ("SimplifiedLayerNormalization", "LayerNormalization", "RMSNormalization")


class ExposeState(ir.passes.InPlacePass):
    """Names what goes into a layer, the residual stream, and makes it an output.

        residual -> norm of the layer's input -> rest
    ->  lime.state [B, S, D] -> norm of the layer's input -> rest

    No node is added, so whoever does not ask for the output pays nothing, and all other outputs stay the same, bit for
    bit. Refuses a graph whose layers are not named as the model builder names them, and a layer that is not inside.

    Args:
        layer: From 1 to the number of layers - 1: how many layers a token has passed.
    """

    def __init__(self, layer: int) -> None:
        self._layer = layer

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        graph = model.graph
        if any(value.name == STATE for value in graph.outputs):
            return ir.passes.PassResult(model, modified=False)
        state = self._state(graph)
        if state is None:
            found = {int(name[1]) for node in graph if (name := re.match(r"/model/layers\.(\d+)/", node.name or ""))}
            raise ExportError(
                f"the graph has no residual stream before layer {self._layer}; expected a layer from 1 to "
                f"{max(found, default=1) - 1}, in a graph of the model builder"
            )
        state.name = STATE
        graph.outputs.append(state)
        return ir.passes.PassResult(model, modified=True)

    def _state(self, graph: ir.Graph) -> ir.Value | None:
        if self._layer < 1:
            return None
        beginning = f"/model/layers.{self._layer}/input_layernorm/"
        node = next((node for node in graph if (node.name or "").startswith(beginning)), None)
        if node is not None and node.op_type in _SKIP and len(node.outputs) > 3:
            return node.outputs[3]
        if node is not None and node.op_type in _PLAIN:
            return node.inputs[0]
        return None
