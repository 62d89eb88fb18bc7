"""TODO."""

from __future__ import annotations

import onnx_ir as ir

from lime_edge.exporters.weights.projections import Placement

from .graph_edits import concat_node, consumer, producer, split_node, take_over


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
        split = consumer(y, f"{stem}/lime/Split")
        if split is None:
            split = split_node(model.graph, y, self._placement.sizes, f"{stem}/lime/Split")
            concat = concat_node(split.outputs, f"{stem}/lime/Concat")
            take_over(y, concat.outputs[0], but=split)
            model.graph.insert_after(producer(y), [split, concat])
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
        concat = consumer(values[0], f"{stem}/lime/Concat")
        modified = concat is None
        if concat is None:
            concat = concat_node(values, f"{stem}/lime/Concat")
            sizes = [projection.out_features for projection in self._placement.projections]
            split = split_node(model.graph, concat.outputs[0], sizes, f"{stem}/lime/Split")
            for value, piece in zip(values, split.outputs, strict=True):
                take_over(value, piece, but=concat)
            model.graph.insert_after(producer(values[-1]), [concat, split])
            model.graph.sort()  # what uses the first piece may stand before the last projection
        self.joined = concat.outputs[0]
        return ir.passes.PassResult(model, modified)
