"""The weights that an int4 graph multiplies by, as numbers again.

What a skill is learned on when it shall be good on a rounded backbone. Changes no graph.
"""

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
    """Every rounded projection's weight [H, D], by its place; packed ones as they are.

    Args:
        directory: An exported model directory, int4.

    Raises:
        ExportError: Nothing in it is rounded to blocks.
    """
    weights = {}
    for node in ir.load(directory / GRAPH_FILE).graph:
        place = node_place(node)
        if place and (node.domain, node.op_type) == ("com.microsoft", "MatMulNBits"):
            weights[place] = _weight(node)
    if not weights:
        raise ExportError(f"{directory} has no rounded weights; expected an export with --precision int4")
    return weights


def _weight(node: ir.Node) -> npt.NDArray[np.float32]:
    """(q - zero point) * scale. Zero points of an odd number of 4-bit blocks are padded row by row."""
    depth, width, block = (node.attributes[key].as_int() for key in ("K", "N", "block_size"))
    bits = node.attributes["bits"].as_int() if "bits" in node.attributes else 4
    blocks = -(-depth // block)
    values, scales, zeros = (_constant(node, i) for i in (1, 2, 3))
    if values is None or scales is None or bits not in (4, 8):
        raise ExportError(f"{node.name}: weights of {bits} bits in this form cannot be read back")
    whole = _unpack(values, bits).reshape(width, blocks, block).astype(np.float32)
    middle: Any = 2 ** (bits - 1)
    if zeros is not None:
        middle = _unpack(zeros.reshape(width, -1), bits)[:, :blocks, None].astype(np.float32)
    exact = (whole - middle) * scales.reshape(width, blocks, 1).astype(np.float32)
    return np.ascontiguousarray(exact.reshape(width, -1)[:, :depth])


def _unpack(packed: Array, bits: int) -> Array:
    """Two 4-bit values of each byte, the low one first."""
    if bits == 8:
        return packed
    return np.stack([packed & 15, packed >> 4], axis=-1).reshape(*packed.shape[:-1], -1)


def _constant(node: ir.Node, index: int) -> Array | None:
    value = node.inputs[index] if index < len(node.inputs) else None
    return None if value is None or value.const_value is None else value.const_value.numpy()
