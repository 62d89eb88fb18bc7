"""Inserts a LiME operator behind every adapted projection, with the shared adapter as initializers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import onnx_ir as ir

from lime_edge.contract.model import OPSET
from lime_edge.contract.module_table import ALIGNMENT, ModuleTable
from lime_edge.contract.names import BANK, DOMAIN, PAST_EVIDENCE, SKILL_IDS
from lime_edge.contract.routing import Routing
from lime_edge.errors import ExportError
from lime_edge.exporters.operators.lime_linear import MINIMUM_OPSET, Operator
from lime_edge.exporters.weights.adapter_weights import AdaptedModule

from .graph_edits import add_initializer, find_consumer, producer_of, replace_uses


@dataclass(frozen=True)
class Target:
    """One node to insert behind a projection."""

    x: ir.Value  # input of the projection
    y: ir.Value  # its output, bias included
    name: str  # of the new node
    modules: tuple[AdaptedModule, ...]  # the node's parts


class _Form(NamedTuple):
    """The properties that all nodes of one operator share."""

    parts: int
    gain_only: bool
    times: bool


class InsertOperators(ir.passes.InPlacePass):
    """Inserts operators behind projections.

        x -> projection -> y -> rest
    ->  x -> projection -> y -> LimeLinear(x, y, A, B.., lime.bank, lime.skill_ids) -> rest

    or LimeGain, for modules of which skills have the gain alone. If the only use of y is a product with a factor of the
    same shape, the new node replaces that product, too:
        y -> Mul(y, factor) -> rest
    ->  y -> LimeLinearTimes(x, y, A, B.., lime.bank, lime.skill_ids, factor) -> rest
    The model gets the operators' functions, and the graph gets the shared adapter as initializers. Refuses a graph
    whose standard operators have an opset before 21.
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
        new = [target for target in self._targets if find_consumer(target.y, target.name) is None]
        products = _products(new)
        forms = [_Form(len(t.modules), t.modules[0].name in self._table.gain_only, t.name in products) for t in new]
        operators = {
            form: self._operator(form, [t.modules for t, own in zip(new, forms, strict=True) if own == form], opset)
            for form in dict.fromkeys(forms)
        }
        moved: dict[ir.Value, ir.Value] = {}  # output of a replaced product -> output of the node that replaces it
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
        """The operator that all nodes of a form share; `alike` has the modules of each node."""
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
        """Insert a node, replacing `product` if there is one, and return its output."""
        modules, first = target.modules, target.modules[0]
        shared = [np.concatenate([module.a.T for module in modules], axis=1)]  # [D, R]
        shared += [module.scale * module.b.T for module in modules]  # [r_i, H_i]
        names = ["A", *(f"B{part + 1}" for part in range(len(modules)))]
        stem = target.name.strip("/").replace("/", ".")
        constants = [
            add_initializer(graph, f"{stem}.{name}", array.astype(self._stored.numpy()))
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
            replace_uses(target.y, out, keep=node)
            graph.insert_after(producer_of(target.y), node)
        else:
            replace_uses(product.outputs[0], out, keep=node)
            graph.insert_after(product, node)
            graph.remove(product, safe=True)
        return out


def _products(targets: Sequence[Target]) -> dict[str, ir.Node]:
    """Products to replace, by the target's name: each is the only use of `y`, with a factor of the same shape."""
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
