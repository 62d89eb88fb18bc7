"""Adds soft prefixes to a graph: token ids beyond the vocabulary are virtual tokens, whose embeddings are in the bank.

Implements LiME-PromptTuning (arXiv 2604.02338, section 3). The modulation is applied when a skill is written, so that
the graph only looks up n embeddings. The caller decides where in a prompt the virtual tokens go.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from lime_edge.contract.module_table import ALIGNMENT, Module
from lime_edge.contract.names import BANK, SKILL_IDS
from lime_edge.errors import ExportError

from .graph_edits import add_initializer, find_embedding, scaled_embedding

_BEYOND = 2**31  # no bank has that many rows


class InsertPrefix(ir.passes.InPlacePass):
    """Looks up virtual tokens in the bank instead of the embedding.

        input_ids -> embedding -> rest
    ->  input_ids -> Where(virtual, 0, id) -> embedding -> Where(virtual, bank[skill, id - V], .) -> rest

    V is the size of the vocabulary; ids V .. V + n - 1 are virtual, and later ids stay invalid. The embeddings of all
    other tokens stay the same, bit for bit. Refuses a graph that does not have exactly one embedding, or whose
    embedding has another width than the prefix.
    """

    def __init__(self, prefix: Module, row_size: int, dtype: ir.DataType, stored: ir.DataType) -> None:
        self._prefix, self._row_size, self._dtype, self._stored = prefix, row_size, dtype, stored

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        graph = model.graph
        if any(node.name == "/lime.prefix/out" for node in graph):
            return ir.passes.PassResult(model, modified=False)
        embedding, ids = find_embedding(graph)
        vocabulary, known = _vocabulary_size(graph), scaled_embedding(embedding.outputs[0])
        width = known.shape[-1] if known.shape is not None else None
        if isinstance(width, int) and width != self._prefix.out_features:
            raise ExportError(
                f"the graph's embeddings have {width} numbers and the prefix has {self._prefix.out_features}; "
                "export the backbone that the prefix was trained on"
            )
        writer = _Writer(graph)
        at, virtual = self._positions(writer, ids, vocabulary)
        safe = writer("Where", virtual, writer.int64([0]), ids)
        prefixes = self._embeddings(writer, graph, at)
        mask = writer("Unsqueeze", virtual, writer.int64([-1]))
        graph.insert_before(embedding, writer.nodes)
        embedding.replace_input_with(next(i for i, value in enumerate(embedding.inputs) if value is ids), safe)
        out = ir.Value(name="/lime.prefix/out/output_0", type=known.type, shape=known.shape)
        node = ir.Node("", "Where", [mask, prefixes, known], outputs=[out], name="/lime.prefix/out")
        for user, index in tuple(known.uses()):
            user.replace_input_with(index, out)
        node.replace_input_with(2, known)
        producer = known.producer()
        assert producer is not None  # the embedding or its scale
        graph.insert_after(producer, node)
        return ir.passes.PassResult(model, modified=True)

    def _positions(self, writer: _Writer, ids: ir.Value, vocabulary: int) -> tuple[ir.Value, ir.Value]:
        """Every token's position in the prefix (0 for real tokens), and which tokens are virtual, each [B, S]."""
        at = writer("Sub", ids, writer.int64([vocabulary]))
        inside = writer("Less", at, writer.int64([self._prefix.rank]))
        virtual = writer("And", writer("GreaterOrEqual", at, writer.int64([0])), inside)
        return writer("Where", virtual, at, writer.int64([0])), virtual

    def _embeddings(self, writer: _Writer, graph: ir.Graph, at: ir.Value) -> ir.Value:
        """Embeddings at positions of each token's skill, [B, S, H]; only these blocks of the bank are read."""
        row = graph.initializers[SKILL_IDS]  # [B or 1, S or 1]
        # Gather counts negative indices from the end, so replace a negative row by one that no bank has
        small = writer("Equal", writer("BitwiseAnd", row, writer.int64([_BEYOND - 1])), row)
        safe = writer("Where", small, row, writer.int64([_BEYOND]))
        units = self._prefix.out_features // ALIGNMENT
        first = writer("Mul", safe, writer.int64([self._row_size // ALIGNMENT]))
        first = writer("Add", first, writer("Mul", at, writer.int64([units])))
        every = writer("Add", writer("Unsqueeze", first, writer.int64([-1])), writer.int64(list(range(units))))
        bank = writer("Reshape", graph.initializers[BANK], writer.int64([-1, ALIGNMENT]))
        read = writer("Reshape", writer("Gather", bank, every), writer.int64([0, 0, -1]))  # [B, S, H]
        if self._stored == self._dtype:
            return read
        return writer("Cast", read, to=int(self._dtype))


class _Writer:
    """Creates nodes for a graph's main body, with numbered names."""

    def __init__(self, graph: ir.Graph) -> None:
        self._graph = graph
        self.nodes: list[ir.Node] = []

    def __call__(self, op: str, *inputs: ir.Value, **attributes: int) -> ir.Value:
        name = f"/lime.prefix/{op}_{len(self.nodes)}"
        output = ir.Value(name=f"{name}/output_0")
        listed = [ir.AttrInt64(key, value) for key, value in attributes.items()]
        self.nodes.append(ir.Node("", op, inputs, listed, outputs=[output], name=name))
        return output

    def int64(self, values: list[int]) -> ir.Value:
        """An int64 constant [n]."""
        name = f"lime.prefix.{'_'.join(map(str, values[:2]))}.{len(values)}"
        if name not in self._graph.initializers:
            add_initializer(self._graph, name, np.array(values, np.int64))
        return self._graph.initializers[name]


def _vocabulary_size(graph: ir.Graph) -> int:
    logits = next((value for value in graph.outputs if value.name == "logits"), None)
    size = logits.shape[-1] if logits is not None and logits.shape is not None else None
    if not isinstance(size, int):
        raise ExportError("the size of the vocabulary is not in the graph; expected logits [B, S, V]")
    return size
