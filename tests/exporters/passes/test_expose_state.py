"""The optional output of states: what it holds, and that everything else stays the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch

from lime_edge.contract.names import STATE
from lime_edge.errors import ExportError
from lime_edge.exporters.genai_builder import build_backbone
from lime_edge.exporters.passes.expose_state import ExposeState
from tests.exporters.export_case import HEAD, Array, load_torch, prompt


def run(path: Path, tokens: Array, outputs: list[str] | None) -> dict[str, Array]:
    """The outputs of a whole sequence; the graph's inputs besides tokens and cache keep their defaults."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    feeds = {"input_ids": tokens, "attention_mask": np.ones_like(tokens)}
    for value in session.get_inputs():
        if value.name.startswith("past_key_values"):
            feeds[value.name] = np.zeros((len(tokens), value.shape[1], 0, HEAD), np.float32)
        if value.name == "position_ids":
            feeds[value.name] = np.broadcast_to(np.arange(tokens.shape[1]), tokens.shape).copy()
    names = outputs or [value.name for value in session.get_outputs()]
    return dict(zip(names, session.run(names, feeds), strict=True))


@pytest.mark.parametrize("architecture", ["llama", "qwen3", "gemma3", "phi3"])
def test_it_is_the_state_that_goes_into_the_layer(
    architecture: str, backbones: dict[str, Path], tmp_path: Path
) -> None:
    build_backbone(backbones[architecture], tmp_path / "plain", "fp32")
    model, tokens = ir.load(tmp_path / "plain" / "model.onnx"), prompt(1, 7)
    names = [node.name for node in model.graph]
    assert ExposeState(1)(model).modified
    assert [node.name for node in model.graph] == names  # no node more
    assert not ExposeState(1)(model).modified
    (tmp_path / "made").mkdir()
    ir.save(model, tmp_path / "made" / "model.onnx", external_data="model.onnx.data")
    before = run(tmp_path / "plain" / "model.onnx", tokens, None)
    after = run(tmp_path / "made" / "model.onnx", tokens, None)
    state = after.pop(STATE)
    assert before.keys() == after.keys()
    for name, values in before.items():
        np.testing.assert_array_equal(after[name], values, name)
    unasked = run(tmp_path / "made" / "model.onnx", tokens, ["logits"])["logits"]
    np.testing.assert_array_equal(unasked, before["logits"])
    with torch.inference_mode():
        found = load_torch(backbones[architecture])(torch.tensor(tokens), output_hidden_states=True)
    expected = found.hidden_states[1].numpy()
    assert np.abs(state - expected).max() < 1e-4 * np.abs(expected).max()


@pytest.mark.parametrize("layer", [0, 2, 99])
def test_a_layer_that_is_not_inside_is_refused(layer: int, backbones: dict[str, Path], tmp_path: Path) -> None:
    build_backbone(backbones["llama"], tmp_path, "fp32")
    model = ir.load(tmp_path / "model.onnx")
    outputs = [value.name for value in model.graph.outputs]
    with pytest.raises(ExportError, match=f"before layer {layer}; expected a layer from 1 to 1"):
        ExposeState(layer)(model)
    assert [value.name for value in model.graph.outputs] == outputs
