"""Adapts a decoder graph from the model builder: decides which operators to insert and runs the graph passes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from lime_edge.contract.module_table import Module, ModuleTable
from lime_edge.errors import ExportError
from lime_edge.exporters.passes.choose_logits import ChooseLogits
from lime_edge.exporters.passes.collect_evidence import CollectEvidence
from lime_edge.exporters.passes.declare_inputs import DeclareInputs
from lime_edge.exporters.passes.expose_state import ExposeState
from lime_edge.exporters.passes.insert_operators import InsertOperators, Target
from lime_edge.exporters.passes.insert_prefix import InsertPrefix
from lime_edge.exporters.passes.split_and_join import JoinSeparate, SplitPacked
from lime_edge.exporters.weights.adapter_weights import AdapterWeights
from lime_edge.exporters.weights.projections import Placement, find_projections, module_place, place_modules


def adapt_graph(
    model: ir.Model, adapter: AdapterWeights, half: bool = False, state_layer: int | None = None
) -> ModuleTable:
    """Insert the operators into a decoder graph, in place.

    Args:
        model: The graph that the model builder wrote. Adapting it again with the same adapter changes nothing.
        adapter: A valid adapter (`AdapterWeights.faults` yields nothing).
        half: Store the shared adapter and read the skills' vectors in fp16, even if the activations are fp32.
        state_layer: Also return the states that go into this layer, by which a skill is chosen. None: no such output.

    Returns:
        The adapted modules in graph order and the layout of a bank row.

    Raises:
        ExportError: Some modules do not fit the graph; the error names all of them. The graph is unchanged.
    """
    dtype = _activations(model.graph)
    stored = ir.DataType.FLOAT16 if half else dtype
    if state_layer is not None:
        ExposeState(state_layer)(model)
    if adapter.prefix is not None:
        return _adapt_embedding(model, adapter.prefix, adapter, dtype, stored)
    placements, faults = place_modules(adapter.modules, find_projections(model.graph))
    faults += _overflow_faults(adapter, stored)
    gain_only = frozenset(m.name for m in adapter.modules if m.name.rpartition(".")[2] in adapter.gain_only)
    faults += _mixed_node_faults(placements, gain_only)
    if faults:
        raise ExportError("the adapter does not fit the graph", faults)
    modules = [module for placement in placements for module in placement.modules]
    table = ModuleTable(
        tuple(Module(module.name, module.out_features, module.rank) for module in modules),
        adapter.routing.experts,
        adapter.kinds,
        gain_only,
    )
    targets = [target for placement in placements for target in _targets(model, placement)]
    DeclareInputs(table, adapter.routing, dtype, stored)(model)
    InsertOperators(targets, table, adapter.routing, dtype, stored)(model)
    CollectEvidence(table)(model)
    ChooseLogits()(model)
    return table


def _adapt_embedding(
    model: ir.Model, prefix: Module, adapter: AdapterWeights, dtype: ir.DataType, stored: ir.DataType
) -> ModuleTable:
    """Adapt the graph for prompt tuning, which adapts no projection."""
    table = ModuleTable((prefix,), 1, adapter.kinds)
    DeclareInputs(table, adapter.routing, dtype, stored)(model)
    InsertPrefix(prefix, table.row_size, dtype, stored)(model)
    ChooseLogits()(model)
    return table


def _activations(graph: ir.Graph) -> ir.DataType:
    """Float type of the activations, which is the type of the logits."""
    dtype = next((value.dtype for value in graph.outputs if value.name == "logits"), None)
    if dtype not in (ir.DataType.FLOAT, ir.DataType.FLOAT16):
        raise ExportError(f"the graph's logits are {dtype}; expected FLOAT or FLOAT16")
    return dtype


def _overflow_faults(adapter: AdapterWeights, dtype: ir.DataType) -> list[str]:
    """Modules whose shared adapter overflows the float type that stores it."""
    largest = float(np.finfo(dtype.numpy()).max)
    return [
        f"{module.name}: the shared adapter exceeds {largest:.4g}, the largest {dtype.name}; export as fp32 or int4"
        for module in adapter.modules
        if max(np.abs(module.a).max(), abs(module.scale) * np.abs(module.b).max()) > largest
    ]


def _mixed_node_faults(placements: Sequence[Placement], gain_only: frozenset[str]) -> list[str]:
    """Nodes with some gain-only modules; a node reads the same kinds of vectors for all its parts."""
    named = [[module.name for module in placement.modules] for placement in placements]
    return [
        f"{', '.join(names)} are one node of the graph: make all of them gain-only, or none"
        for names in named
        if len({name in gain_only for name in names}) > 1
    ]


def _targets(model: ir.Model, placement: Placement) -> list[Target]:
    """The nodes for one placement; splits or joins the graph's values so that each node has one value to adapt."""
    first, modules = placement.projections[0], placement.modules
    if len(placement.projections) > 1:
        join = JoinSeparate(placement)
        join(model)
        assert join.joined is not None  # set by the call
        block = first.stem.rsplit("/", 1)[0]
        place = module_place(modules[0].name)
        assert place is not None  # only modules with a place are placed
        return [Target(first.x, join.joined, f"{block}/{place[1]}/LimeLinear", modules)]
    if len(modules) < len(placement.sizes):
        split = SplitPacked(placement)
        split(model)
        return [
            Target(first.x, split.pieces[part], f"{first.stem}/lime/{part}/LimeLinear", (module,))
            for part, module in zip(placement.parts, modules, strict=True)
        ]
    return [Target(first.x, first.y, f"{first.stem}/LimeLinear", modules)]
