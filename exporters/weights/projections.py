"""Finds the projections in the model builder's graph and matches them with adapted modules.

It relies on the node names of ONNX Runtime GenAI's model builder and on the Hugging Face names of decoder modules.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir

from .adapter_weights import AdaptedModule

#: Projections of a decoder layer, in the order in which the graph computes them.
ORDER = ("q_proj", "k_proj", "v_proj", "qkv_proj", "o_proj", "gate_proj", "up_proj", "gate_up_proj", "down_proj")
#: The parts of a packed projection, in order; packed in the graph or in the backbone.
PACKED = {"qkv_proj": ("q_proj", "k_proj", "v_proj"), "gate_up_proj": ("gate_proj", "up_proj")}

_NODE = re.compile(r"/layers\.(\d+)/(?:attn|mlp)/(\w+_proj)/MatMul")
_MODULE = re.compile(r"(?:^|\.)layers\.(\d+)\.(?:self_attn|mlp)\.(\w+_proj)$")

Place = tuple[int, str]  # layer, projection


@dataclass(frozen=True)
class Projection:
    """One multiplication by a weight, bias included."""

    x: ir.Value  # [B, S, D]
    y: ir.Value  # [B, S, H]
    in_features: int
    out_features: int

    @property
    def stem(self) -> str:
        """Prefix for names of nodes that belong to the projection, such as "/model/layers.0/attn/q_proj"."""
        return str(self.y.name).rsplit("/", 2)[0]


@dataclass(frozen=True)
class Placement:
    """Adapted modules and the projections of one layer that compute them.

    Either one projection per module, one packed projection with several modules, or several projections of one module.
    """

    projections: tuple[Projection, ...]
    modules: tuple[AdaptedModule, ...]
    sizes: tuple[int, ...]  # number of outputs of every part, adapted or not
    parts: tuple[int, ...]  # index of the part that each module adapts


def module_place(name: str) -> Place | None:
    """Layer and projection of a module by its Hugging Face name; None if it is no known projection."""
    match = _MODULE.search(name)
    return (int(match[1]), match[2]) if match and match[2] in ORDER else None


def node_place(node: ir.Node) -> Place | None:
    """Layer and projection of a node by the builder's name for it; None if it is no projection."""
    match = _NODE.search(node.name or "")
    return (int(match[1]), match[2]) if match else None


def placeless(name: str) -> str:
    """The fault of a module whose name is no known projection."""
    return f"{name}: not a projection of a decoder layer; adapt some of {', '.join(ORDER)}"


def find_projections(graph: ir.Graph) -> dict[Place, Projection]:
    """Every projection of the decoder layers."""
    found = {}
    for node in graph:
        place = node_place(node)
        size = _weight_size(node) if place else None
        if place and size:
            x = node.inputs[0]
            assert x is not None  # ONNX requires the first input of a product
            found[place] = Projection(x, _with_bias(node.outputs[0], place[1]), *size)
    return found


def _weight_size(node: ir.Node) -> tuple[int, int] | None:
    """D and H of a multiplication by a constant weight."""
    if (node.domain, node.op_type) == ("com.microsoft", "MatMulNBits"):
        return node.attributes["K"].as_int(), node.attributes["N"].as_int()
    weight = node.inputs[1] if (node.domain, node.op_type) == ("", "MatMul") else None
    if weight is None or weight.const_value is None or len(weight.const_value.shape) != 2:
        return None
    rows, columns = weight.const_value.shape.numpy()
    return rows, columns


def _with_bias(product: ir.Value, name: str) -> ir.Value:
    """The product plus the projection's bias, if it has one."""
    for node in product.consumers():
        if node.op_type == "Add" and (node.name or "").endswith(f"/{name}/Add"):
            return node.outputs[0]
    return product


def place_modules(
    modules: Sequence[AdaptedModule], found: dict[Place, Projection]
) -> tuple[list[Placement], list[str]]:
    """Match adapted modules with projections.

    Returns:
        Placements in graph order, and a fault for every module that cannot be placed.
    """
    places: dict[Place, AdaptedModule] = {}
    faults = []
    for module in modules:
        place = module_place(module.name)
        if place is None:
            faults.append(placeless(module.name))
        else:
            places[place] = module
    placements = []
    done: set[Place] = set()
    for layer, name in sorted(places, key=lambda place: (place[0], ORDER.index(place[1]))):
        if (layer, name) in done:
            continue
        projections, parts = _projections_of(layer, name, found)
        adapted = {part: places[layer, other] for part, other in enumerate(parts) if (layer, other) in places}
        done |= {(layer, other) for other in parts}
        placement = _placement(projections, adapted, len(parts))
        if isinstance(placement, Placement):
            placements.append(placement)
        else:
            faults.append(placement)
    return placements, faults


def _projections_of(layer: int, name: str, found: dict[Place, Projection]) -> tuple[list[Projection], tuple[str, ...]]:
    """The projections that compute a module, and the names of all modules that they compute."""
    parts = PACKED.get(name, ())
    if (layer, name) in found:
        return [found[layer, name]], (name,)
    if name in PACKED["qkv_proj"] and (layer, "qkv_proj") in found:
        return [found[layer, "qkv_proj"]], PACKED["qkv_proj"]
    if parts and all((layer, part) in found for part in parts):
        return [found[layer, part] for part in parts], (name,)
    return [], (name,)


def _placement(projections: list[Projection], adapted: dict[int, AdaptedModule], count: int) -> Placement | str:
    """A placement, or the fault that prevents it."""
    modules = tuple(adapted.values())
    if not projections:
        return f"{modules[0].name}: the graph has no such projection"
    width, depth = sum(projection.out_features for projection in projections), projections[0].in_features
    given = {part: module.out_features for part, module in adapted.items()}
    sizes = (width,) if count == 1 else _attention_sizes(width, given)
    fits = all(size == sizes[part] for part, size in given.items()) and min(sizes) > 0
    if not fits or any(module.in_features != depth for module in modules):
        shapes = ", ".join(f"{module.name} {module.in_features} -> {module.out_features}" for module in modules)
        return f"{shapes}: the graph's projection is {depth} -> {' + '.join(map(str, sizes))}"
    return Placement(tuple(projections), modules, sizes, tuple(adapted))


def _attention_sizes(width: int, given: dict[int, int]) -> tuple[int, int, int]:
    """Widths of packed q, k and v; k and v have the same width."""
    key = given.get(1, given.get(2, (width - given.get(0, 0)) // 2))
    return width - 2 * key, key, key
