"""The embedding table of untied models in 8-bit blocks: its bits, its error, and graphs that stay as they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest

from lime_edge.exporters.genai_builder import build_backbone
from lime_edge.exporters.passes.quantise_embedding import BLOCK, QuantiseEmbedding, round_table
from tests.exporters.export_case import make_session, prompt, run

Array = npt.NDArray[Any]
VOCABULARY, WIDTH = 9, 64


def embedding(table: Array, use: str = "", axis: int = 0) -> ir.Model:
    """Looks the rows of a table up; `use` is a further node that reads the table."""
    text = f"""<ir_version: 10, opset_import: ["" : 21]>
    g (int64[B, S] input_ids) => (float[B, S, {table.shape[1]}] out)
    <float[1] table = {{0}}>
    {{
        e = Gather <axis = {axis}> (table, input_ids)
        out = Identity(e)
        {use}
    }}"""
    model: ir.Model = ir.serde.deserialize_model(onnx.parser.parse_model(text))
    value = model.graph.initializers["table"]
    value.const_value, value.shape = ir.tensor(table, name="table"), ir.Shape(table.shape)
    value.type = ir.TensorType(value.const_value.dtype)
    return model


def looked_up(model: ir.Model, ids: list[list[int]]) -> Array:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(ir.to_proto(model).SerializeToString(), options, providers=["CPUExecutionProvider"])
    found: Array = session.run(None, {"input_ids": np.array(ids)})[0]
    return found


def bell(rows: int, width: int = WIDTH, seed: int = 0) -> Array:
    """Numbers as in trained tables: rows of different sizes with a few large values."""
    rng = np.random.default_rng(seed)
    table = rng.standard_t(5, (rows, width)) * rng.lognormal(-3, 0.5, (rows, 1))
    return table.astype(np.float32)


def test_the_operator_computes_the_rounded_table() -> None:
    table = bell(VOCABULARY)
    table[3], table[4, :BLOCK], table[5] = 0, 0.25, -np.abs(table[5])
    model = embedding(table)
    assert QuantiseEmbedding()(model).modified
    assert not QuantiseEmbedding()(model).modified
    assert [node.op_type for node in model.graph] == ["GatherBlockQuantized", "Identity"]
    assert "table" not in model.graph.initializers
    values, scales, zeros = round_table(table)
    exact = (values.reshape(VOCABULARY, -1, BLOCK) - zeros[..., None].astype(np.float32)) * scales[..., None]
    found = looked_up(model, [[*range(VOCABULARY)]])[0]
    np.testing.assert_array_equal(found, exact.reshape(table.shape))
    assert not found[3].any()


def test_no_value_is_further_away_than_half_a_step() -> None:
    table = bell(5000)  # more than are rounded at once
    values, scales, zeros = round_table(table)
    exact = (values.reshape(5000, -1, BLOCK).astype(float) - zeros[..., None]) * scales[..., None]
    off = np.abs(exact - table.reshape(exact.shape)) / scales[..., None]
    assert off.max() <= 1.001  # half a step for the value, half for the zero point at the ends of a block
    assert np.mean(off) < 0.26
    relative = np.linalg.norm(exact.reshape(table.shape) - table) / np.linalg.norm(table)
    assert 0.002 < relative < 0.008


def test_rows_that_are_extreme() -> None:
    largest = np.finfo(np.float32).max
    smallest = np.float32(1.4e-45)
    table = np.array(
        [[smallest * 380] * BLOCK, [-smallest * 380] * BLOCK, [largest / 4, -largest / 4] * 16], np.float32
    )
    values, scales, zeros = round_table(table)
    exact = (values.reshape(3, 1, BLOCK).astype(float) - zeros[..., None]) * scales[..., None]
    assert np.all(np.abs(exact.reshape(table.shape) - table.astype(float)) <= scales * 200)
    assert np.isfinite(scales).all()


@pytest.mark.parametrize(
    "model",
    [
        embedding(bell(VOCABULARY), use="more = Transpose(table)"),
        embedding(bell(VOCABULARY, width=BLOCK + 16)),
        embedding(bell(VOCABULARY).astype(np.float16)),
        embedding(bell(VOCABULARY), axis=1),
    ],
    ids=["shared", "width", "type", "axis"],
)
def test_other_tables_stay(model: ir.Model) -> None:
    before = ir.to_proto(model).SerializeToString(deterministic=True)
    assert not QuantiseEmbedding()(model).modified
    assert ir.to_proto(model).SerializeToString(deterministic=True) == before


@pytest.mark.parametrize("architecture", ["qwen2", "mistral", "phi3"])
def test_the_error_of_a_model_is_that_of_its_embeddings(
    architecture: str, backbones: dict[str, Path], tmp_path: Path
) -> None:
    """The logits of the fp32 graph hardly move, and much less than from rounding the projections to 4 bits."""
    backbone = backbones[architecture]
    for precision in ("fp32", "int4"):
        build_backbone(backbone, tmp_path / precision, precision)
    model = ir.load(tmp_path / "fp32" / "model.onnx")
    assert QuantiseEmbedding()(model).modified
    (tmp_path / "rounded").mkdir()
    ir.save(model, tmp_path / "rounded" / "model.onnx", external_data="model.onnx.data")
    logits = {name: run(make_session(tmp_path / name), prompt())["logits"] for name in ("fp32", "rounded", "int4")}
    off = {name: np.linalg.norm(logits[name] - logits["fp32"]) / np.linalg.norm(logits["fp32"]) for name in logits}
    assert 0 < off["rounded"] < 0.02
    assert off["rounded"] < off["int4"] / 5
