"""The rounded weights of an int4 export, and learning on them, on tiny models."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import helper
from onnx.external_data_helper import load_external_data_for_model

from lime_edge.errors import ConfigError, ExportError
from lime_edge.exporters import rounded_weights
from lime_edge.skills.package import Skill
from lime_edge.training import backbone as backbones
from lime_edge.training import checkpoint
from lime_edge.training.export_checkpoint import export_checkpoint
from lime_edge.training.int4_backbone import OnRounded
from lime_edge.training.learn_skill import Recipe, learn
from lime_edge.training.plan import TrainingPlan
from tests.support.tiny_training import backbone_dir, save, scratch, tasks, wrapped


@cache
def exported(architecture: str, precision: Any = "int4", seed: int = 1) -> tuple[Path, Path]:
    """A checkpoint and its export."""
    folder = scratch() / f"rounded-{architecture}-{seed}"
    if not folder.exists():
        save(wrapped(architecture, seed), folder, architecture)
    output = folder.with_name(f"{folder.name}-{precision}")
    export_checkpoint(folder, output, precision)
    return folder, output


def multiplied(node: onnx.NodeProto, weights: dict[str, onnx.TensorProto]) -> Any:
    """The weight [H, D] that ONNX Runtime multiplies by, found by running the node alone on an identity matrix."""
    sizes = {attribute.name: attribute.i for attribute in node.attribute}
    kept = [attribute for attribute in node.attribute if attribute.name != "accuracy_level"]  # activations stay fp32
    alone = helper.make_node("MatMulNBits", ["x", *list(node.input)[1:]], ["y"], domain="com.microsoft")
    alone.attribute.extend(kept)
    values = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in ("x", "y")]
    held = [weights[name] for name in list(node.input)[1:] if name]
    graph = helper.make_graph([alone], "one", values[:1], values[1:], held)
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": np.eye(sizes["K"], dtype=np.float32)})[0].T


@pytest.mark.parametrize("architecture", ["llama", "phi3", "gemma3"])
def test_rounded_weights_are_those_that_the_graph_multiplies_by(architecture: str) -> None:
    output = exported(architecture)[1]
    model = onnx.load(output / "model.onnx", load_external_data=False)
    load_external_data_for_model(model, str(output))
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    nodes = [n for n in model.graph.node if n.op_type == "MatMulNBits" and "layers." in n.name]
    found = rounded_weights(output)
    assert len(found) == len(nodes) > 4
    for node, weight in zip(nodes, found.values(), strict=True):
        np.testing.assert_allclose(weight, multiplied(node, weights), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("architecture", ["llama", "phi3"])
def test_the_run_sees_the_rounded_weights_and_what_follows_the_exact_ones(architecture: str) -> None:
    folder, output = exported(architecture)
    model = checkpoint.open_checkpoint(folder, torch.float32)[0]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    rounded = OnRounded(model, output)
    names = {name.replace(".base_layer", "") for name in before if "layers." in name}
    assert len(rounded) == sum(name.endswith("_proj.weight") for name in names)

    def changed() -> dict[str, float]:
        now = model.state_dict()
        return {n: float((now[n] - v).abs().max() / v.abs().max()) for n, v in before.items() if (now[n] != v).any()}

    rounded.on_train_begin(None, None, None)
    assert len(changed()) == len(rounded)
    assert all(0 < change < 0.2 for change in changed().values())
    rounded.on_train_end(None, None, None)
    assert not changed()


def learned(tmp_path: Path, name: str, rounded: Path | None) -> Skill:
    plan = TrainingPlan(steps=4, batch=4, vector_rate=3e-2)
    recipe = Recipe(name=name, metric_rows=0)
    return learn(tasks() / "skill", exported("llama")[0], tmp_path / f"{name}.lime", recipe, plan, rounded=rounded)[0]


def test_a_skill_learned_on_rounded_weights_is_another_one_and_fits_like_any(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lime_edge import Runtime

    monkeypatch.setattr(backbones, "training_dtype", lambda: torch.float32)
    output = exported("llama")[1]
    plain, rounded = learned(tmp_path, "plain", None), learned(tmp_path, "rounded", output)
    assert any((plain.tensors[name] != rounded.tensors[name]).any() for name in plain.tensors)
    runtime = Runtime.load(exported("llama", "fp32")[1])
    runtime.load_skill(tmp_path / "rounded.lime", prove=True)  # golden prompts are answered with the exact weights


def test_an_export_of_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        learned(tmp_path, "other", exported("llama", "fp32", seed=2)[1])
    assert "has another shared adapter" in caught.value.faults[0]
    assert "is fp32; expected an int4 export" in caught.value.faults[1]
    with pytest.raises(ConfigError, match="is not an exported model"):
        learned(tmp_path, "nothing", tmp_path)
    with pytest.raises(ExportError, match="has no rounded weights"):
        rounded_weights(exported("llama", "fp32")[1])
    assert not list(tmp_path.glob("*.lime"))
    assert backbone_dir().is_dir()
