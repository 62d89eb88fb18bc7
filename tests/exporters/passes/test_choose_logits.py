"""Logits of the last positions only: the graph's optional input, and its use by the runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest

from lime_edge.contract.names import LOGITS_FROM
from lime_edge.exporters.passes.choose_logits import ChooseLogits
from lime_edge.runtime import Runtime
from lime_edge.runtime.decoding.kv_cache import Cache
from tests.support.runtime_models import HEAD, exported, runtime

Array = npt.NDArray[Any]
IDS = np.random.default_rng(0).integers(3, 300, (1, 12))


def run(path: Path, **fed: Array) -> Array:
    """Logits of `IDS` with an empty cache."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    feeds = {"input_ids": IDS, "attention_mask": np.ones_like(IDS), **fed}
    for value in session.get_inputs():
        if value.name.startswith("past_key_values"):
            feeds[value.name] = np.zeros((1, value.shape[1], 0, HEAD), np.float32)
    logits: Array = session.run(["logits"], feeds)[0][0]
    return logits


@pytest.mark.parametrize(
    ("precision", "architecture"), [("fp32", "llama"), ("int4", "llama"), ("fp32", "qwen2"), ("fp32", "gemma3")]
)
def test_the_last_logits_are_those_of_all(precision: str, architecture: str) -> None:
    path = exported(precision=precision, architecture=architecture) / "model.onnx"
    whole = run(path)
    assert whole.shape == (12, 300)
    for start, first in ((0, 0), (-2, 10), (3, 3), (-12, 0), (-99, 0)):
        found = run(path, **{LOGITS_FROM: np.array([start])})
        np.testing.assert_array_equal(found, whole[first:])
    assert run(path, **{LOGITS_FROM: np.array([-1])}).shape == (1, 300)


def test_adapting_again_changes_nothing() -> None:
    model = ir.load(exported() / "model.onnx")
    nodes = [node.name for node in model.graph]
    assert nodes.count(f"/{LOGITS_FROM}/Slice") == 1
    assert not ChooseLogits()(model).modified
    assert [node.name for node in model.graph] == nodes


def test_a_graph_without_an_output_embedding_is_left_alone() -> None:
    text = """<ir_version: 10, opset_import: ["" : 21]> g (float[1, 2, 3] x) => (float[1, 2, 3] logits)
    { logits = Softmax(x) }"""
    model = ir.serde.deserialize_model(onnx.parser.parse_model(text))
    assert not ChooseLogits()(model).modified


def test_what_comes_after_the_embedding_is_passed_by() -> None:
    """Biases and soft caps come after the output embedding."""
    text = """<ir_version: 10, opset_import: ["" : 21]> g (float[1, 4, 3] x) => (float[1, s, 5] logits)
    <float[3, 5] w = {1,2,3,4,5,6,7,8,9,1,2,3,4,5,6}, float[5] b = {1,2,3,4,5}, float cap = {30}>
    {
        y = MatMul(x, w)
        z = Add(b, y)
        small = Div(z, cap)
        bent = Tanh(small)
        logits = Mul(cap, bent)
    }"""
    model = ir.serde.deserialize_model(onnx.parser.parse_model(text))
    plain = ir.serde.serialize_model(model).SerializeToString()
    assert ChooseLogits()(model).modified
    cut = ir.serde.serialize_model(model).SerializeToString()
    x = np.random.default_rng(0).standard_normal((1, 4, 3)).astype(np.float32)
    whole, same, last = (
        ort.InferenceSession(data, providers=["CPUExecutionProvider"]).run(None, {"x": x, **fed})[0]
        for data, fed in ((plain, {}), (cut, {}), (cut, {LOGITS_FROM: np.array([-2])}))
    )
    np.testing.assert_array_equal(same, whole)
    np.testing.assert_array_equal(last, whole[:, -2:])


@pytest.mark.parametrize("precision", ["fp32", "int4"])
def test_the_runtime_computes_two_positions_of_a_prompt_and_all_where_it_needs_them(precision: str) -> None:
    graph = Runtime.load(exported(precision=precision), threads=1)._graph
    bank = np.zeros((1, graph.directory.contract.table.row_size), graph.bank_dtype)
    zeros, whole = np.zeros(12, np.int64), run(exported(precision=precision) / "model.onnx")
    cache = Cache(graph, bank, 1, 40)
    np.testing.assert_array_equal(cache.prefill(0, IDS[0], zeros)[0], whole[-1])
    (binding,) = cache._bound.values()
    assert binding._outputs["logits"].shape == (1, 2, 300)
    cache.rewind(0, 5)
    np.testing.assert_array_equal(cache.extend(0, IDS[0, 5:], zeros[5:]), whole[5:])
    assert cache.step(IDS[0, :1], zeros[:1]).shape == (1, 300)


def test_graphs_without_the_input_still_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    made = runtime(exported(), "legal")
    wanted = made.generate("Hello", "legal", max_new_tokens=10).token_ids
    scores = made.choose("Hello", ["yes", "no"], "legal").scores
    monkeypatch.setattr(made._graph, "chooses_logits", False)
    assert made.generate("Hello", "legal", max_new_tokens=10).token_ids == wanted
    assert made.choose("Hello", ["yes", "no"], "legal").scores == scores
