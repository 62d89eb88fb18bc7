"""Graph surgeries that turn a builder's decoder graph into one with skills, one class each.

Every pass states what it needs as faults before it touches anything, and changes nothing when it
has run already. With nothing fed to the new inputs the graph computes what it computed before, bit
for bit. Knows nothing of files.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from lime_edge.contract.model import OPSET
from lime_edge.contract.module_table import ALIGNMENT, ModuleTable
from lime_edge.contract.routing import Routing
from lime_edge.errors import ExportError
from lime_edge.exporters.adapter_weights import AdaptedModule
from lime_edge.exporters.operators.lime_linear import DOMAIN, MINIMUM_OPSET, Operator
from lime_edge.exporters.projections import Placement

BANK, SKILL_IDS = "lime.bank", "lime.skill_ids"
PAST_EVIDENCE, EVIDENCE = "lime.past_evidence", "lime.evidence"


class DeclareInputs(ir.passes.InPlacePass):
    """Adds the graph inputs that a skill comes in by. All are optional.

        inputs:  input_ids, ...
    ->  inputs:  input_ids, ..., lime.bank [lime_skills, P], lime.skill_ids [lime_batch, lime_tokens]
                 and, with a window of n > 1, lime.past_evidence [lime_rows, n - 1, R + 1]

    Each is an initializer too: without a value it is one skill of zeros, for every token.
    """

    def __init__(self, table: ModuleTable, routing: Routing, dtype: ir.DataType, stored: ir.DataType) -> None:
        self._empty: dict[str, tuple[npt.NDArray[np.generic], list[str | int]]] = {
            BANK: (np.zeros((1, table.row_size), stored.numpy()), ["lime_skills", table.row_size]),
            SKILL_IDS: (np.zeros((1, 1), np.int64), ["lime_batch", "lime_tokens"]),
        }
        if routing.window > 1:
            past, columns = routing.window - 1, evidence_columns(table) + 1
            zeros = np.zeros((1, past, columns), dtype.numpy())
            self._empty[PAST_EVIDENCE] = (zeros, ["lime_rows", past, columns])

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        graph = model.graph
        new = [name for name in self._empty if name not in graph.initializers]
        for name in new:
            array, shape = self._empty[name]
            value = ir.Value(name=name, shape=ir.Shape(shape), const_value=ir.tensor(array, name=name))
            value.type = ir.TensorType(ir.DataType.from_numpy(array.dtype))
            graph.inputs.append(value)
            graph.register_initializer(value)
        return ir.passes.PassResult(model, modified=bool(new))


class SplitPacked(ir.passes.InPlacePass):
    """Gives each part of a packed projection a value of its own, where only some parts are adapted.

        x -> qkv_proj -> rest
    ->  x -> qkv_proj -> Split -> q, k, v -> Concat -> rest
    """

    def __init__(self, placement: Placement) -> None:
        self._placement = placement
        self.pieces: tuple[ir.Value, ...] = ()

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        y, stem = self._placement.projections[0].y, self._placement.projections[0].stem
        split = _consumer(y, f"{stem}/lime/Split")
        if split is None:
            split = _split(model.graph, y, self._placement.sizes, f"{stem}/lime/Split")
            concat = _concat(split.outputs, f"{stem}/lime/Concat")
            _take_over(y, concat.outputs[0], but=split)
            model.graph.insert_after(_producer(y), [split, concat])
            self.pieces = tuple(split.outputs)
            return ir.passes.PassResult(model, modified=True)
        self.pieces = tuple(split.outputs)
        return ir.passes.PassResult(model, modified=False)


class JoinSeparate(ir.passes.InPlacePass):
    """Gives separate projections one value, where the backbone has them as one module.

        x -> gate_proj -> rest;  x -> up_proj -> rest
    ->  x -> gate_proj, x -> up_proj -> Concat -> Split -> rest; rest
    """

    def __init__(self, placement: Placement) -> None:
        self._placement = placement
        self.joined: ir.Value | None = None

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        values = [projection.y for projection in self._placement.projections]
        stem = self._placement.projections[0].stem
        concat = _consumer(values[0], f"{stem}/lime/Concat")
        modified = concat is None
        if concat is None:
            concat = _concat(values, f"{stem}/lime/Concat")
            sizes = [projection.out_features for projection in self._placement.projections]
            split = _split(model.graph, concat.outputs[0], sizes, f"{stem}/lime/Split")
            for value, piece in zip(values, split.outputs, strict=True):
                _take_over(value, piece, but=concat)
            model.graph.insert_after(_producer(values[-1]), [concat, split])
            model.graph.sort()  # what uses the first piece may stand before the last projection
        self.joined = concat.outputs[0]
        return ir.passes.PassResult(model, modified)


@dataclass(frozen=True)
class Target:
    """One node to insert: between which values, its name, and the modules that are its parts."""

    x: ir.Value
    y: ir.Value
    name: str
    modules: tuple[AdaptedModule, ...]


class _Form(NamedTuple):
    """What nodes of one operator have in common."""

    parts: int
    gain_only: bool
    times: bool


class InsertOperators(ir.passes.InPlacePass):
    """Adapts projections.

        x -> projection -> y -> rest
    ->  x -> projection -> y -> LimeLinear(x, y, A, B.., lime.bank, lime.skill_ids) -> rest

    or LimeGain, where the gain is all that skills have of a module. Where y goes into a product with something of its
    shape and nowhere else, the node does that product, too:
        y -> Mul(y, factor) -> rest
    ->  y -> LimeLinearTimes(x, y, A, B.., lime.bank, lime.skill_ids, factor) -> rest
    The operators' functions join the model, and the shared adapter its initializers.
    Refuses standard operators of an opset before 21.
    """

    def __init__(
        self,
        targets: Sequence[Target],
        table: ModuleTable,
        routing: Routing,
        dtype: ir.DataType,
        stored: ir.DataType,
    ) -> None:
        self._targets, self._table, self._routing, self._dtype, self._stored = targets, table, routing, dtype, stored

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        opset = model.graph.opset_imports.get("", 0)
        if opset < MINIMUM_OPSET:
            raise ExportError(f"the graph uses opset {opset}; expected {MINIMUM_OPSET} or later")
        new = [target for target in self._targets if _consumer(target.y, target.name) is None]
        products = _products(new)
        forms = [_Form(len(t.modules), t.modules[0].name in self._table.gain_only, t.name in products) for t in new]
        operators = {
            form: self._operator(form, [t.modules for t, own in zip(new, forms, strict=True) if own == form], opset)
            for form in dict.fromkeys(forms)
        }
        moved: dict[ir.Value, ir.Value] = {}  # what products put out, and what puts it out now
        for target, form in zip(new, forms, strict=True):
            product, x = products.get(target.name), moved.get(target.x, target.x)
            out = self._insert(model.graph, replace(target, x=x), operators[form], product)
            if product is not None:
                moved[product.outputs[0]] = out
        for operator in operators.values():
            function = operator.function()
            model.functions[function.identifier()] = function
            model.graph.opset_imports[DOMAIN] = OPSET
        return ir.passes.PassResult(model, modified=bool(new))

    def _operator(self, form: _Form, alike: Sequence[tuple[AdaptedModule, ...]], opset: int) -> Operator:
        """The one operator of all nodes of that form, given the modules of each."""
        table, kinds = self._table, self._table.kinds_of(alike[0][0].name)
        width = len([kind for kind in kinds if kind != "rank"])
        full = all(width * module.out_features % ALIGNMENT == 0 for modules in alike for module in modules)
        return Operator(
            form.parts,
            self._routing,
            kinds,
            table.row_size,
            self._dtype,
            self._stored,
            opset,
            aligned=full and form.parts == 1 and "rank" not in kinds,
            gain_only=form.gain_only,
            times=form.times,
        )

    def _insert(self, graph: ir.Graph, target: Target, operator: Operator, product: ir.Node | None) -> ir.Value:
        """A node in the place of `product`, if there is one; returns what it puts out."""
        modules, first = target.modules, target.modules[0]
        shared = [np.concatenate([module.a.T for module in modules], axis=1)]  # [D, R]
        shared += [module.scale * module.b.T for module in modules]  # [r_i, H_i]
        names = ["A", *(f"B{part + 1}" for part in range(len(modules)))]
        stem = target.name.strip("/").replace("/", ".")
        constants = [
            _initializer(graph, f"{stem}.{name}", array.astype(self._stored.numpy()))
            for name, array in zip(names, shared, strict=True)
        ]
        factors = [] if product is None else [value for value in product.inputs if value and value is not target.y]
        last = [graph.initializers[PAST_EVIDENCE]] if PAST_EVIDENCE in graph.initializers else []
        given = [graph.initializers[BANK], graph.initializers[SKILL_IDS], *factors, *last]
        out = ir.Value(name=f"{target.name}/output_0", type=target.y.type, shape=target.y.shape)
        outputs = [out]
        if self._routing.window > 1:
            outputs.append(ir.Value(name=f"{target.name}/output_1", type=target.y.type))
        node = operator.node(
            [target.x, target.y, *constants, *given],
            outputs,
            operator.attributes(
                [module.out_features for module in modules],
                [module.rank for module in modules],
                self._table.offsets[operator.kinds[0], first.name],
                [module.name for module in self._table.modules].index(first.name) * self._table.experts,
            ),
            target.name,
        )
        if product is None:
            _take_over(target.y, out, but=node)
            graph.insert_after(_producer(target.y), node)
        else:
            _take_over(product.outputs[0], out, but=node)
            graph.insert_after(product, node)
            graph.remove(product, safe=True)
        return out


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
        concat = _concat(pieces, f"/{EVIDENCE}/Concat")
        value = concat.outputs[0]
        value.name, value.type = EVIDENCE, pieces[0].type
        value.shape = ir.Shape(["batch_size", "sequence_length", self._columns])
        graph.append(concat)
        graph.outputs.append(value)
        return ir.passes.PassResult(model, modified=True)


def evidence_columns(table: ModuleTable) -> int:
    """R: columns of evidence of all modules."""
    return len(table.modules) * table.experts


def _initializer(graph: ir.Graph, name: str, array: npt.NDArray[np.generic]) -> ir.Value:
    tensor = ir.tensor(np.ascontiguousarray(array), name=name)
    value = ir.Value(name=name, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype), const_value=tensor)
    graph.register_initializer(value)
    return value


def _split(graph: ir.Graph, value: ir.Value, sizes: Sequence[int], name: str) -> ir.Node:
    lengths = _initializer(graph, f"{name}/lengths", np.array(sizes, np.int64))
    outputs = [ir.Value(name=f"{name}/output_{i}", type=value.type) for i in range(len(sizes))]
    return ir.Node("", "Split", [value, lengths], [ir.AttrInt64("axis", -1)], outputs=outputs, name=name)


def _concat(values: Sequence[ir.Value], name: str) -> ir.Node:
    output = ir.Value(name=f"{name}/output_0", type=values[0].type)
    return ir.Node("", "Concat", values, [ir.AttrInt64("axis", -1)], outputs=[output], name=name)


def _take_over(old: ir.Value, new: ir.Value, but: ir.Node) -> None:
    """Let everything that used `old` use `new`, except the node that makes `new` from it."""
    for node, index in tuple(old.uses()):
        if node is not but:
            node.replace_input_with(index, new)


def _products(targets: Sequence[Target]) -> dict[str, ir.Node]:
    """By the name of the target: the product with something of its shape that `y` goes into, and nowhere else."""
    found: dict[str, ir.Node] = {}
    for target in targets:
        uses = tuple(target.y.uses())
        if len(uses) != 1 or target.y.is_graph_output():
            continue
        node = uses[0].node
        if (node.domain, node.op_type) != ("", "Mul") or node.outputs[0].is_graph_output():
            continue
        shapes = [value.shape for value in node.inputs if value is not None]
        if shapes[0] is not None and shapes[0] == shapes[1] and node not in found.values():
            found[target.name] = node
    return found


def _consumer(value: ir.Value, name: str) -> ir.Node | None:
    """The node of that name that uses a value."""
    return next((node for node in value.consumers() if node.name == name), None)


def _producer(value: ir.Value) -> ir.Node:
    node = value.producer()
    if node is None:
        raise ExportError(f"{value.name} is an input of the graph; expected the output of a projection")
    return node
