"""Splits packed projections and joins separate ones, so that every node to insert adapts one value of the graph."""

from __future__ import annotations

import onnx_ir as ir

from lime_edge.exporters.weights.projections import Placement

from .graph_edits import find_consumer, make_concat, make_split, producer_of, replace_uses


class SplitPacked(ir.passes.InPlacePass):
    """Gives each part of a packed projection its own value, if only some parts are adapted.

        x -> qkv_proj -> rest
    ->  x -> qkv_proj -> Split -> q, k, v -> Concat -> rest
    """

    def __init__(self, placement: Placement) -> None:
        self._placement = placement
        self.pieces: tuple[ir.Value, ...] = ()

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        y, stem = self._placement.projections[0].y, self._placement.projections[0].stem
        split = find_consumer(y, f"{stem}/lime/Split")
        if split is None:
            split = make_split(model.graph, y, self._placement.sizes, f"{stem}/lime/Split")
            concat = make_concat(split.outputs, f"{stem}/lime/Concat")
            replace_uses(y, concat.outputs[0], keep=split)
            model.graph.insert_after(producer_of(y), [split, concat])
            self.pieces = tuple(split.outputs)
            return ir.passes.PassResult(model, modified=True)
        self.pieces = tuple(split.outputs)
        return ir.passes.PassResult(model, modified=False)


class JoinSeparate(ir.passes.InPlacePass):
    """Joins separate projections into one value, if the backbone has them as one module.

        x -> gate_proj -> rest;  x -> up_proj -> rest
    ->  x -> gate_proj, x -> up_proj -> Concat -> Split -> rest; rest
    """

    def __init__(self, placement: Placement) -> None:
        self._placement = placement
        self.joined: ir.Value | None = None

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        values = [projection.y for projection in self._placement.projections]
        stem = self._placement.projections[0].stem
        concat = find_consumer(values[0], f"{stem}/lime/Concat")
        modified = concat is None
        if concat is None:
            concat = make_concat(values, f"{stem}/lime/Concat")
            sizes = [projection.out_features for projection in self._placement.projections]
            split = make_split(model.graph, concat.outputs[0], sizes, f"{stem}/lime/Split")
            for value, piece in zip(values, split.outputs, strict=True):
                replace_uses(value, piece, keep=concat)
            model.graph.insert_after(producer_of(values[-1]), [concat, split])
            model.graph.sort()  # a node that uses the first piece may come before the last projection
        self.joined = concat.outputs[0]
        return ir.passes.PassResult(model, modified)
