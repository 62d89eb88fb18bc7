"""Dequantised int4 weights: block scales, padded zero points and 8-bit layers, with values computed by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from lime_edge.errors import ExportError
from lime_edge.exporters.weights.int4_weights import rounded_weights

NAME = "/model/layers.1/attn/o_proj/MatMulNBits"


def save(folder: Path, bits: int, width: int, depth: int, block: int, *arrays: np.ndarray) -> Path:
    """A model directory with one quantised projection."""
    x = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape([1, depth]))
    constants = [
        ir.Value(name=f"c{i}", const_value=ir.tensor(array, name=f"c{i}"), type=ir.TensorType(ir.tensor(array).dtype))
        for i, array in enumerate(arrays)
    ]
    sizes = {"K": depth, "N": width, "block_size": block, "bits": bits}
    attributes = [ir.AttrInt64(name, value) for name, value in sizes.items()]
    out = ir.Value(name="y", type=ir.TensorType(ir.DataType.FLOAT))
    node = ir.Node("com.microsoft", "MatMulNBits", [x, *constants], attributes, outputs=[out], name=NAME)
    opsets = {"": 21, "com.microsoft": 1}
    graph = ir.Graph([x], [out], nodes=[node], initializers=constants, opset_imports=opsets, name="one")
    ir.save(ir.Model(graph, ir_version=10), folder / "model.onnx")
    return folder


def test_four_bits_with_zero_points(tmp_path: Path) -> None:
    """Three blocks of 16 for 40 inputs: the last block and each row of zero points are padded."""
    q = np.random.default_rng(0).integers(0, 16, (2, 48)).astype(np.uint8)
    packed = (q[:, 0::2] | q[:, 1::2] << 4).reshape(2, 3, 8)
    scales = np.array([[1, 2, 3], [4, 5, 6]], np.float32)
    zeros = np.array([[7, 8, 9], [1, 2, 3]], np.uint8)
    padded = np.array([[7 | 8 << 4, 9], [1 | 2 << 4, 3]], np.uint8)
    save(tmp_path, 4, 2, 40, 16, packed, scales.ravel(), padded.ravel())
    expected = ((q.reshape(2, 3, 16).astype(float) - zeros[:, :, None]) * scales[:, :, None]).reshape(2, 48)[:, :40]
    weights = rounded_weights(tmp_path)
    assert list(weights) == [(1, "o_proj")]
    np.testing.assert_array_equal(weights[1, "o_proj"], expected)


def test_eight_bits_without_zero_points(tmp_path: Path) -> None:
    q = np.arange(32, dtype=np.uint8).reshape(1, 2, 16)
    save(tmp_path, 8, 1, 32, 16, q, np.array([0.5, 2], np.float32))
    weight = rounded_weights(tmp_path)[1, "o_proj"]
    np.testing.assert_array_equal(weight[0, [0, 15, 16, 31]], [-64.0, -56.5, -224.0, -194.0])


def test_other_widths_are_refused(tmp_path: Path) -> None:
    save(tmp_path, 2, 1, 32, 16, np.zeros((1, 2, 4), np.uint8), np.ones(2, np.float32))
    with pytest.raises(ExportError, match="cannot dequantise weights of 2 bits; expected constants of 4 or 8 bits"):
        rounded_weights(tmp_path)
