"""Makes optional inputs required, for runtimes that do not accept values for initializers."""

from __future__ import annotations

import onnx_ir as ir


class RequireInputs(ir.passes.InPlacePass):
    """Removes the initializers that give inputs of the graph their default.

        inputs: x, lime.logits_from;  initializers: lime.logits_from, weights
    ->  inputs: x, lime.logits_from;  initializers: weights

    onnxruntime-web refuses values for such inputs, and onnxruntime-node ignores them without a word, so that a skill
    would have no effect.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        graph = model.graph
        optional = [value for value in graph.inputs if value.name in graph.initializers]
        for value in optional:
            del graph.initializers[str(value.name)]
            value.const_value = None
        return ir.passes.PassResult(model, modified=bool(optional))
