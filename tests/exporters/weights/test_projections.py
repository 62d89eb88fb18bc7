"""Which projection of a graph computes which adapted module."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from lime_edge.exporters.weights.adapter_weights import AdaptedModule
from lime_edge.exporters.weights.projections import Projection, module_place, node_place, place_modules

ATTENTION, MLP = "model.layers.3.self_attn.", "model.layers.3.mlp."


def projection(inputs: int, outputs: int) -> Projection:
    return Projection(ir.Value(name="x"), ir.Value(name="/model/layers.3/part/MatMul/output_0"), inputs, outputs)


def module(name: str, inputs: int, outputs: int) -> AdaptedModule:
    return AdaptedModule(name, np.ones((2, inputs), np.float32), np.ones((outputs, 2), np.float32), 1.0)


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("model.layers.12.self_attn.q_proj", (12, "q_proj")),
        ("base_model.model.model.layers.0.mlp.down_proj", (0, "down_proj")),
        ("model.layers.0.mlp.experts.1.down_proj", None),
        ("model.layers.0.self_attn.rotary_proj", None),
        ("lm_head", None),
    ],
)
def test_places_of_modules(name: str, place: Any) -> None:
    assert module_place(name) == place


def test_places_of_nodes() -> None:
    names = ("/model/layers.2/mlp/up_proj/MatMul", "/model/layers.2/attn/qkv_proj/MatMulNBits", "/lm_head/MatMul")
    assert [node_place(ir.Node("", "MatMul", [], name=name)) for name in names] == [
        (2, "up_proj"),
        (2, "qkv_proj"),
        None,
    ]


def test_parts_of_a_packed_projection() -> None:
    """k has half the width of q; the widths of all three parts follow from one of them."""
    packed = projection(8, 16 + 4 + 4)
    (placement,), faults = place_modules([module(ATTENTION + "v_proj", 8, 4)], {(3, "qkv_proj"): packed})
    assert faults == []
    assert (placement.projections, placement.sizes, placement.parts) == ((packed,), (16, 4, 4), (2,))


def test_a_module_that_the_graph_computes_in_two_projections() -> None:
    gate, up = projection(8, 12), projection(8, 12)
    found = {(3, "gate_proj"): gate, (3, "up_proj"): up}
    (placement,), faults = place_modules([module(MLP + "gate_up_proj", 8, 24)], found)
    assert faults == []
    assert (placement.projections, placement.sizes, placement.parts) == ((gate, up), (24,), (0,))


def test_every_module_without_a_place_is_a_fault() -> None:
    modules = [
        module("lm_head", 8, 4),
        module(MLP + "up_proj", 8, 12),
        module(ATTENTION + "o_proj", 8, 5),
        module(ATTENTION + "q_proj", 8, 30),
    ]
    placements, faults = place_modules(modules, {(3, "o_proj"): projection(8, 4), (3, "qkv_proj"): projection(8, 24)})
    assert placements == []
    assert faults[0].startswith("lm_head: not a projection of a decoder layer")
    assert faults[1] == f"{ATTENTION}q_proj 8 -> 30: the graph's projection is 8 -> 30 + -3 + -3"
    assert faults[2] == f"{ATTENTION}o_proj 8 -> 5: the graph's projection is 8 -> 4"
    assert faults[3] == f"{MLP}up_proj: the graph has no such projection"
