"""Adds an input that limits the logits to the last positions.

The output embedding takes a large share of a small model's time, and a prompt needs it for one position only.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from lime_edge.contract.names import LOGITS_FROM

from .graph_edits import add_initializer

_HEADS = ("MatMul", "MatMulNBits")  # their first input is x [B, S, D]
_BETWEEN = ("Add", "Cast", "Div", "Mul", "Tanh")  # elementwise: biases, scales, soft caps
_END = np.iinfo(np.int64).max


class ChooseLogits(ir.passes.InPlacePass):
    """Cuts the input of the output embedding.

        x -> output embedding -> logits
    ->  x -> Slice(x, lime.logits_from) -> output embedding -> logits

    The new input is the first position whose logits are wanted, counted from the end if negative. It is optional and
    defaults to 0. A graph that does not end in an output embedding stays unchanged.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        graph = model.graph
        head = _head(graph)
        if head is None or head.inputs[0] is None or LOGITS_FROM in graph.initializers:
            return ir.passes.PassResult(model, modified=False)
        x = head.inputs[0]
        start = add_initializer(graph, LOGITS_FROM, np.array([0], np.int64))
        graph.inputs.append(start)
        end = add_initializer(graph, f"{LOGITS_FROM}/end", np.array([_END], np.int64))
        axis = add_initializer(graph, f"{LOGITS_FROM}/axis", np.array([1], np.int64))
        wanted = ir.Value(name=f"{LOGITS_FROM}/output_0", type=x.type)
        node = ir.Node("", "Slice", [x, start, end, axis], outputs=[wanted], name=f"/{LOGITS_FROM}/Slice")
        head.replace_input_with(0, wanted)
        graph.insert_before(head, node)
        return ir.passes.PassResult(model, modified=True)


def _head(graph: ir.Graph) -> ir.Node | None:
    """The output embedding: the last matrix product before the logits."""
    value = next((value for value in graph.outputs if value.name == "logits"), None)
    while value is not None and (node := value.producer()) is not None:
        if node.op_type in _HEADS:
            return node
        if node.op_type not in _BETWEEN:
            return None
        value = next((given for given in node.inputs if given is not None and given.producer() is not None), None)
    return None
