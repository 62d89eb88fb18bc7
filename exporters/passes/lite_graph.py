"""Replaces the operators of ai.lime by a few standard nodes, for graphs that run one skill of one expert at a time."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import onnx_ir as ir

from lime_edge.contract.module_table import ALIGNMENT
from lime_edge.contract.names import BANK, DOMAIN, EVIDENCE, PAST_EVIDENCE, ROW, SKILL_IDS
from lime_edge.errors import ExportError

from .graph_edits import make_concat, make_split, replace_uses

#: Outputs of one Split. WebGPU binds a storage buffer for each, and devices may offer as few as eight.
WAYS = 7
_KINDS = ("gain", "shift")


@dataclass
class _Adapted:
    """One node of ai.lime: its vectors, part by part, as pieces of the row."""

    node: ir.Node
    kinds: tuple[str, ...]
    widths: tuple[int, ...]
    offset: int
    pieces: dict[str, list[ir.Value]] = field(default_factory=dict)

    def sizes(self) -> Iterator[tuple[str, int]]:
        """(kind, values) of the pieces of the row that belong to the node; the kind of padding is empty."""
        for width in self.widths:
            for kind in self.kinds:
                yield kind, width
            used = width * len(self.kinds)
            if padding := math.ceil(used / ALIGNMENT) * ALIGNMENT - used:
                yield "", padding


class LiteGraph(ir.passes.InPlacePass):
    """Reads the vectors of the active skill from one required input instead of a bank.

        x, y -> LimeLinear(x, y, A, B.., lime.bank, lime.skill_ids) -> rest
    ->  y -> Sum(y, Mul(y, gain), shift) -> rest,  gain and shift: pieces of lime.row [1, P], float32

    With one expert the routing has no effect, and without expert vectors the shared adapter has none, so both go. A row
    of zeros gives y bit for bit. Refuses graphs whose skills have expert vectors, a rank gate or a soft prefix, and
    routing over a window.
    """

    def __init__(self, row_size: int) -> None:
        self._row_size = row_size

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        graph = model.graph
        adapted = [_read(node) for node in graph if node.domain == DOMAIN]
        if not adapted and any(value.name == ROW for value in graph.inputs):
            return ir.passes.PassResult(model, modified=False)
        if faults := [*_faults(graph, adapted)]:
            raise ExportError("the graph cannot run in the form for browsers", faults)
        row = ir.Value(name=ROW, shape=ir.Shape([1, self._row_size]), type=ir.TensorType(ir.DataType.FLOAT))
        graph.inputs.append(row)
        splits = _cut(graph, row, self._row_size, sorted(adapted, key=lambda one: one.offset))
        for one in adapted:
            _replace(graph, one)
        for split in reversed(splits):
            graph.insert_before(next(iter(graph)), split)
        _remove_unused(model)
        return ir.passes.PassResult(model, modified=True)


def _read(node: ir.Node) -> _Adapted:
    kinds = tuple(node.attributes["kinds"].as_string().split(","))
    return _Adapted(node, kinds, tuple(node.attributes["parts"].as_ints()), node.attributes["bank_offset"].as_int())


def _faults(graph: ir.Graph, adapted: Sequence[_Adapted]) -> Iterator[str]:
    if not adapted:
        yield "it has no operators of ai.lime, so it adapts no projection (prompt tuning has none)"
    if others := sorted({kind for one in adapted for kind in one.kinds} - set(_KINDS)):
        expected = " and ".join(_KINDS)
        yield f"its skills have {' and '.join(others)} vectors; expected {expected}: export with --no-expert"
    if any(value.name in (EVIDENCE, PAST_EVIDENCE) for value in (*graph.inputs, *graph.outputs)):
        yield "its routing has a window; expected a window of 1"


def _cut(graph: ir.Graph, row: ir.Value, row_size: int, adapted: Sequence[_Adapted]) -> list[ir.Node]:
    """Split the row into the pieces of all nodes; returns the Split nodes in an order in which they can run."""
    owners: list[tuple[_Adapted | None, str, int]] = []
    position = 0
    for one in adapted:
        if one.offset > position:  # vectors that no node reads
            owners.append((None, "", one.offset - position))
            position = one.offset
        for kind, size in one.sizes():
            owners.append((one, kind, size))
            position += size
    if position < row_size:
        owners.append((None, "", row_size - position))
    splits: list[ir.Node] = []
    pieces = _tree(graph, row, [size for _, _, size in owners], splits, f"/{ROW}")
    for (owner, kind, _), piece in zip(owners, pieces, strict=True):
        if owner is not None and kind:
            owner.pieces.setdefault(kind, []).append(piece)
    return splits


def _tree(graph: ir.Graph, value: ir.Value, sizes: Sequence[int], splits: list[ir.Node], name: str) -> list[ir.Value]:
    """Pieces of the given sizes, by splits of at most `WAYS` outputs."""
    if len(sizes) == 1:
        return [value]
    step = 1
    while step * WAYS < len(sizes):
        step *= WAYS
    groups = [sizes[start : start + step] for start in range(0, len(sizes), step)]
    split = make_split(graph, value, [sum(group) for group in groups], f"{name}/Split")
    splits.append(split)
    parts = zip(split.outputs, groups, strict=True)
    return [
        piece for at, (part, group) in enumerate(parts) for piece in _tree(graph, part, group, splits, f"{name}/{at}")
    ]


def _replace(graph: ir.Graph, one: _Adapted) -> None:
    """Standard nodes in the place of one node of ai.lime."""
    node, stem = one.node, str(one.node.name)
    y, old = node.inputs[1], node.outputs[0]
    new: list[ir.Node] = []
    joined = {}
    for kind, pieces in one.pieces.items():
        joined[kind] = pieces[0]
        if len(pieces) > 1:
            new.append(make_concat(pieces, f"{stem}/{kind}/Concat"))
            joined[kind] = new[-1].outputs[0]

    def add(op: str, name: str, *inputs: ir.Value | None) -> ir.Value:
        output = ir.Value(name=f"{stem}/{name}/output_0", type=old.type, shape=old.shape)
        new.append(ir.Node("", op, inputs, outputs=[output], name=f"{stem}/{name}"))
        return output

    out = y
    if "gain" in joined:
        out = add("Add", "gain/Add", out, add("Mul", "gain/Mul", y, joined["gain"]))
    if "shift" in joined:
        out = add("Add", "shift/Add", out, joined["shift"])
    if node.op_type.rstrip("0123456789").endswith("Times"):
        factor = next(value for value in node.inputs[3 + len(one.widths) + 2 :] if value is not None)
        out = add("Mul", "factor/Mul", out, factor)
    assert out is not None  # y is an input of every such node
    graph.insert_after(node, new)
    replace_uses(old, out, keep=node)
    graph.remove(node, safe=True)


def _remove_unused(model: ir.Model) -> None:
    """Remove the inputs for banks, the shared adapter and the functions, which no node uses any more."""
    graph = model.graph
    for value in [value for value in graph.inputs if value.name in (BANK, SKILL_IDS)]:
        graph.inputs.remove(value)
    for name in [name for name, value in graph.initializers.items() if not value.uses() and not value.is_graph_input()]:
        del graph.initializers[name]
    for key in [key for key in model.functions if key[0] == DOMAIN]:
        del model.functions[key]
    graph.opset_imports.pop(DOMAIN, None)
