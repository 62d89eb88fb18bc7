"""Products of 8-bit integers in the place of block-quantised ones."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from lime_edge.contract.names import LOGITS_FROM, ROW
from lime_edge.exporters.passes.int8_products import Int8Products, round_weights
from tests.exporters.passes.test_lite_graph import run
from tests.support.runtime_models import contract
from tests.support.web_models import converted, source


def test_weights_are_within_half_a_scale() -> None:
    weight = np.random.default_rng(0).standard_normal((6, 40)).astype(np.float32)
    weight[2] = 0
    q, scale = round_weights(weight)
    assert q.shape == (40, 6)
    assert q.dtype == np.int8
    assert np.all(np.abs(q.T * scale[:, None] - weight) <= scale[:, None] * 0.5001)
    assert not q[:, 2].any()


def test_logits_stay_close_to_those_of_the_blocks() -> None:
    directory = converted("int4")
    row = 0.3 * np.random.default_rng(1).standard_normal((1, contract(source("int4")).table.row_size))
    fed = {ROW: row.astype(np.float32), LOGITS_FROM: np.array([0])}
    blocks, whole = run(directory / "model.onnx", **fed), run(directory / "wasm.onnx", **fed)
    span = np.abs(blocks - blocks.mean(-1, keepdims=True)).max()
    assert np.abs(blocks - whole).max() < 0.05 * span
    assert (blocks.argmax(-1) == whole.argmax(-1)).mean() > 0.8


def test_no_block_quantised_product_is_left() -> None:
    graph = ir.load(converted("int4") / "wasm.onnx").graph
    kinds = {node.op_type for node in graph}
    assert "MatMulIntegerToFloat" in kinds
    assert "MatMulNBits" not in kinds


def test_a_graph_without_them_stays_as_it_is() -> None:
    model = ir.load(converted() / "model.onnx")
    before = [node.name for node in model.graph]
    assert not Int8Products()(model).modified
    assert [node.name for node in model.graph] == before
