"""Adds the output that returns the evidence of all modules, which a router with a window needs for later tokens."""

from __future__ import annotations

import onnx_ir as ir

from lime_edge.contract.module_table import ModuleTable
from lime_edge.contract.names import DOMAIN, EVIDENCE

from .graph_edits import make_concat


class CollectEvidence(ir.passes.InPlacePass):
    """Returns the evidence of this call as an output, where the routing has a window.

        LimeLinear.. -> evidence, evidence, ...
    ->  LimeLinear.. -> evidence, evidence, ... -> Concat -> lime.evidence [B, S, R]

    The caller feeds it back as lime.past_evidence.
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
        concat = make_concat(pieces, f"/{EVIDENCE}/Concat")
        value = concat.outputs[0]
        value.name, value.type = EVIDENCE, pieces[0].type
        value.shape = ir.Shape(["batch_size", "sequence_length", self._columns])
        graph.append(concat)
        graph.outputs.append(value)
        return ir.passes.PassResult(model, modified=True)


def evidence_columns(table: ModuleTable) -> int:
    """R, the number of columns of evidence of all modules."""
    return len(table.modules) * table.experts
