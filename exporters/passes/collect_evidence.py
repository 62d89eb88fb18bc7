"""TODO."""

from __future__ import annotations

import onnx_ir as ir

from lime_edge.contract.module_table import ModuleTable
from lime_edge.contract.names import DOMAIN, EVIDENCE

from .graph_edits import concat_node


class CollectEvidence(ir.passes.InPlacePass):
    """Hands out the evidence that later tokens of a windowed router need.

        LimeLinear.. -> evidence, evidence, ...
    ->  LimeLinear.. -> evidence, evidence, ... -> Concat -> lime.evidence [B, S, R]
    """

    def __init__(self, table: ModuleTable) -> None:
        self._columns = evidence_columns(table)

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        graph = model.graph
        nodes = [node for node in graph if node.domain == DOMAIN and len(node.outputs) > 1]
        nodes.sort(key=lambda node: node.attributes["evidence_offset"].as_int())
        pieces = [node.outputs[1] for node in nodes]
        if not pieces or any(value.name == EVIDENCE for value in graph.outputs):
            return ir.passes.PassResult(model, modified=False)
        concat = concat_node(pieces, f"/{EVIDENCE}/Concat")
        value = concat.outputs[0]
        value.name, value.type = EVIDENCE, pieces[0].type
        value.shape = ir.Shape(["batch_size", "sequence_length", self._columns])
        graph.append(concat)
        graph.outputs.append(value)
        return ir.passes.PassResult(model, modified=True)


def evidence_columns(table: ModuleTable) -> int:
    """R: columns of evidence of all modules."""
    return len(table.modules) * table.experts
