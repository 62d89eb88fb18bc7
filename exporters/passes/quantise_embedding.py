"""Stores an embedding table of floats in blocks of 8-bit integers, as the model builder stores tied tables.

The builder rounds a table that the output embedding shares, and leaves a table of its own in fp32: more than half of
the bytes of a small model with a large vocabulary.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from .graph_edits import add_initializer, replace_uses

BLOCK = 32  # values that share a scale and a zero point, as in the builder's matrices
_LARGEST = 255  # 8 bits
_ROWS = 4096  # rounded at once, to save memory


class Rounded(NamedTuple):
    """A table [V, H] as integers: (q - zero point) * scale."""

    values: npt.NDArray[np.uint8]  # [V, H]
    scales: npt.NDArray[np.float32]  # [V, H / block]
    zeros: npt.NDArray[np.uint8]  # [V, H / block]


class QuantiseEmbedding(ir.passes.InPlacePass):
    """Reads embeddings from a table of 8-bit integers.

        Gather(table [V, H], input_ids) -> rest
    ->  GatherBlockQuantized(values, input_ids, scales, zero points) -> rest

    The table itself must be used by nothing else: a table that the output embedding reads, too, stays as it is, as does
    one whose rows are not whole blocks.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        graph = model.graph
        found = next((node for node in graph if _is_lookup(node)), None)
        if found is None:
            return ir.passes.PassResult(model, modified=False)
        table, ids = found.inputs
        assert table is not None  # what a lookup is
        assert table.const_value is not None
        names = ("values", "scales", "zero_points")
        arrays: tuple[npt.NDArray[Any], ...] = round_table(table.const_value.numpy())
        parts = [add_initializer(graph, f"{table.name}.{n}", a) for n, a in zip(names, arrays, strict=True)]
        attributes = {"bits": 8, "block_size": BLOCK, "gather_axis": 0, "quantize_axis": 1}
        old = found.outputs[0]
        out = ir.Value(name=f"{found.name}BlockQuantized/output_0", type=old.type, shape=old.shape)
        node = ir.Node(
            "com.microsoft",
            "GatherBlockQuantized",
            [parts[0], ids, *parts[1:]],
            [ir.AttrInt64(key, value) for key, value in attributes.items()],
            outputs=[out],
            name=f"{found.name}BlockQuantized",
        )
        graph.insert_after(found, node)
        replace_uses(old, out, keep=node)
        graph.remove(found, safe=True)
        del graph.initializers[str(table.name)]
        graph.opset_imports.setdefault("com.microsoft", 1)
        return ir.passes.PassResult(model, modified=True)


def round_table(table: npt.NDArray[np.float32]) -> Rounded:
    """Round every block to 256 values from its smallest to its largest; 0 stays exactly 0."""
    rows = range(0, len(table), _ROWS)
    return Rounded(*map(np.concatenate, zip(*(_round_rows(table[row : row + _ROWS]) for row in rows), strict=True)))


def _round_rows(table: npt.NDArray[np.float32]) -> Rounded:
    blocks = table.reshape(len(table), -1, BLOCK)
    low, high = np.minimum(blocks.min(-1), 0), np.maximum(blocks.max(-1), 0)  # [V, H / block]
    scales = (high - low) / np.float32(_LARGEST)
    scales[scales == 0] = 1  # a block of zeros
    zeros = np.clip(np.round(-low / scales), 0, _LARGEST)
    values = np.clip(np.round(blocks / scales[..., None]) + zeros[..., None], 0, _LARGEST)
    return Rounded(values.reshape(table.shape).astype(np.uint8), scales, zeros.astype(np.uint8))


def _is_lookup(node: ir.Node) -> bool:
    """Whether a node looks token ids up in a table of fp32 that it alone uses."""
    if (node.domain, node.op_type) != ("", "Gather") or len(node.inputs) != 2:
        return False
    table, ids = node.inputs
    if table is None or table.const_value is None or ids is None or ids.name != "input_ids":
        return False
    alone = len(tuple(table.uses())) == 1 and not table.is_graph_input()
    shape = table.const_value.shape.numpy()
    axis = node.attributes["axis"].as_int() if "axis" in node.attributes else 0
    whole = len(shape) == 2 and axis == 0 and shape[1] % BLOCK == 0
    return alone and whole and table.const_value.dtype == ir.DataType.FLOAT
