"""Dequantises an exported graph's int4 weights to float32, so that skills can be trained on the rounded backbone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from lime_edge.contract.names import GRAPH_FILE
from lime_edge.errors import ExportError

from .projections import Place, node_place

Array = npt.NDArray[Any]


def rounded_weights(directory: Path) -> dict[Place, npt.NDArray[np.float32]]:
    """The weight [H, D] of every rounded projection, by its place; packed projections stay packed.

    Args:
        directory: A model directory exported as int4.

    Raises:
        ExportError: The graph has no block-quantised weights, or some in an unknown form.
    """
    weights = {}
    for node in ir.load(directory / GRAPH_FILE).graph:
        place = node_place(node)
        if place and (node.domain, node.op_type) == ("com.microsoft", "MatMulNBits"):
            weights[place] = dequantised(node)
    if not weights:
        raise ExportError(f"{directory} has no rounded weights; expected an export with --precision int4")
    return weights


def dequantised(node: ir.Node) -> npt.NDArray[np.float32]:
    """The weight [H, D] of a MatMulNBits: (q - zero point) * scale.

    If the number of blocks is odd, each row of 4-bit zero points is padded.
    """
    depth, width, block = (node.attributes[key].as_int() for key in ("K", "N", "block_size"))
    bits = node.attributes["bits"].as_int() if "bits" in node.attributes else 4
    blocks = -(-depth // block)
    values, scales, zeros = (_constant(node, i) for i in (1, 2, 3))
    if values is None or scales is None or bits not in (4, 8):
        raise ExportError(f"{node.name}: cannot dequantise weights of {bits} bits; expected constants of 4 or 8 bits")
    whole = _unpack(values, bits).reshape(width, blocks, block).astype(np.float32)
    middle: Any = 2 ** (bits - 1)
    if zeros is not None:
        middle = _unpack(zeros.reshape(width, -1), bits)[:, :blocks, None].astype(np.float32)
    exact = (whole - middle) * scales.reshape(width, blocks, 1).astype(np.float32)
    return np.ascontiguousarray(exact.reshape(width, -1)[:, :depth])


def _unpack(packed: Array, bits: int) -> Array:
    """Two 4-bit values from each byte, the low one first; 8-bit values stay as they are."""
    if bits == 8:
        return packed
    return np.stack([packed & 15, packed >> 4], axis=-1).reshape(*packed.shape[:-1], -1)


def _constant(node: ir.Node, index: int) -> Array | None:
    value = node.inputs[index] if index < len(node.inputs) else None
    return None if value is None or value.const_value is None else value.const_value.numpy()
