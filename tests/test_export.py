"""Exported directories of tiny models: against the builder's own graph and against PyTorch with the definition."""

from __future__ import annotations

import hashlib
import json
import shutil
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch
from transformers import AutoModelForCausalLM

from lime_edge.contract import Kind, ModelContract, Routing
from lime_edge.errors import ExportError
from lime_edge.exporters import AdaptedModule, AdapterWeights, Precision, export
from lime_edge.exporters.builder import build_backbone
from lime_edge.exporters.graph import adapt_graph
from tests import reference
from tests.test_function import clear_of_limits
from tests.tiny import ARCHITECTURES, tiny_model

Array = npt.NDArray[Any]

EVERY = ("q_proj", "k_proj", "v_proj", "qkv_proj", "o_proj", "gate_proj", "up_proj", "gate_up_proj", "down_proj")
HEAD = 16  # head size of the tiny models


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("export")


@pytest.fixture(scope="module")
def backbones(home: Path) -> dict[str, Path]:
    return {name: tiny_model(name, home / name) for name in ARCHITECTURES}


def load_torch(backbone: Path) -> torch.nn.Module:
    model: torch.nn.Module = AutoModelForCausalLM.from_pretrained(backbone, dtype=torch.float64)
    return model.eval()


def make_adapter(backbone: Path, names: tuple[str, ...] = EVERY, seed: int = 0, **others: Any) -> AdapterWeights:
    """A random shared adapter for every linear module of those names."""
    rng = np.random.default_rng(seed)
    modules = []
    for name, module in load_torch(backbone).named_modules():
        if isinstance(module, torch.nn.Linear) and name.rsplit(".", 1)[-1] in names:
            rank = 2 + len(modules) % 3
            a = rng.standard_normal((rank, module.in_features)).astype(np.float32) / 8
            b = rng.standard_normal((module.out_features, rank)).astype(np.float32) / 4
            modules.append(AdaptedModule(name, a, b, 0.5 + rank))
    return AdapterWeights(**{"modules": tuple(modules[::-1]), "routing": Routing(experts=2), **others})


@dataclass
class Exported:
    """An exported directory, and what was put into it."""

    path: Path
    contract: ModelContract
    adapter: AdapterWeights
    backbone: Path

    def session(self) -> ort.InferenceSession:
        return make_session(self.path)

    def skills(self, count: int = 2, seed: int = 1) -> list[dict[str, Array]]:
        """Random vectors ``<kind>.<module>``."""
        rng = np.random.default_rng(seed)
        table = self.contract.table
        shapes = {f"{k}.{m.name}": m.shape(k, table.experts) for m in table.modules for k in table.kinds}
        size = {"expert": 1.0, "gain": 0.1, "shift": 0.1, "rank": 1.0}
        return [
            {name: (rng.standard_normal(s) * size[name.split(".")[0]]).astype(np.float32) for name, s in shapes.items()}
            for _ in range(count)
        ]

    def bank(self, skills: list[dict[str, Array]], dtype: Any = np.float32) -> Array:
        rows = [np.zeros(self.contract.table.row_size, np.float32), *(self.contract.table.pack(s) for s in skills)]
        return np.stack(rows).astype(dtype)


def make_export(backbone: Path, output: Path, precision: Precision = "fp32", **others: Any) -> Exported:
    adapter = make_adapter(backbone, **others)
    contract = export(adapter, backbone, output, precision, overwrite=True)
    return Exported(output, contract, adapter, backbone)


def make_session(path: Path, level: Any = ort.GraphOptimizationLevel.ORT_ENABLE_ALL) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    options.graph_optimization_level = level
    return ort.InferenceSession(path / "model.onnx", options, providers=["CPUExecutionProvider"])


def run(session: ort.InferenceSession, ids: Array, past: dict[str, Array] | None = None, **fed: Array) -> dict[str, Any]:
    """One call; every output by name. `past` is what an earlier call returned."""
    before = next((v.shape[2] for k, v in (past or {}).items() if k.startswith("present.")), 0)
    rows, tokens = ids.shape
    feed: dict[str, Array] = {"input_ids": ids, "attention_mask": np.ones((rows, before + tokens), np.int64)}
    for wanted in session.get_inputs():
        if wanted.name == "position_ids":
            feed["position_ids"] = np.broadcast_to(np.arange(before, before + tokens), ids.shape)
        elif wanted.name.startswith("past_key_values."):
            dtype = np.float16 if wanted.type == "tensor(float16)" else np.float32
            empty = np.zeros((rows, wanted.shape[1], 0, HEAD), dtype)
            feed[wanted.name] = past[wanted.name.replace("past_key_values", "present")] if past else empty
    feed |= {f"lime.{name}": value for name, value in fed.items()}
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, feed), strict=True))


def prompt(rows: int = 2, tokens: int = 7, seed: int = 0) -> Array:
    return np.random.default_rng(seed).integers(3, 290, (rows, tokens))


def oracle(exported: Exported, ids: Array, skills: list[dict[str, Array] | None]) -> Array:
    """Logits of the Hugging Face model in float64 whose adapted modules are the definition, row by row."""
    model, routing = load_torch(exported.backbone), exported.adapter.routing
    kinds = exported.contract.table.kinds

    def hook_for(own: AdaptedModule) -> Any:
        def hook(module: Any, args: tuple[torch.Tensor, ...], _: torch.Tensor) -> torch.Tensor:
            bias = None if module.bias is None else module.bias.numpy()
            rows = []
            for x, skill in zip(args[0].numpy(), skills, strict=True):
                vectors = {k: skill[f"{k}.{own.name}"].astype(np.float64) for k in kinds} if skill else {}
                out, logits = reference.lime_linear(
                    x, module.weight.numpy(), bias, *map(np.float64, (own.a, own.b)), own.scale, vectors, routing
                )
                rows.append(out)
                mean = reference.window_mean(logits, np.zeros((0, routing.experts)), routing.window)
                assert skill is None or all(clear_of_limits(row, routing) for row in mean), "take another seed"
            return torch.from_numpy(np.stack(rows))

        return hook

    modules = dict(model.named_modules())
    for own in exported.adapter.modules:
        modules[own.name].register_forward_hook(hook_for(own))
    with torch.no_grad():
        logits: Array = model(torch.from_numpy(ids)).logits.numpy()
    return logits


def error(found: Array, expected: Array) -> float:
    return float(np.abs(found - expected).max() / np.abs(expected).max())


@pytest.mark.parametrize("precision", ["fp32", "int4"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_without_a_skill_every_bit_is_the_builders(
    architecture: str, precision: Precision, backbones: dict[str, Path], tmp_path: Path
) -> None:
    backbone = backbones[architecture]
    build_backbone(backbone, tmp_path / "plain", precision)
    exported = make_export(backbone, tmp_path / "out", precision)
    for level in (ort.GraphOptimizationLevel.ORT_ENABLE_ALL, ort.GraphOptimizationLevel.ORT_DISABLE_ALL):
        plain, session = make_session(tmp_path / "plain", level), make_session(tmp_path / "out", level)
        expected, nothing_fed = run(plain, prompt()), run(session, prompt())
        assert all(np.array_equal(expected[name], nothing_fed[name]) for name in expected)
        bank = exported.bank(exported.skills())
        mixed = run(session, prompt(), bank=bank, skill_ids=np.array([[0], [2]]))["logits"]
        assert np.array_equal(mixed[0], expected["logits"][0])
        assert not np.allclose(mixed[1], expected["logits"][1], atol=0.1)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_skill_is_the_definition_on_the_hugging_face_model(
    architecture: str, backbones: dict[str, Path], tmp_path: Path
) -> None:
    exported = make_export(backbones[architecture], tmp_path / "out", seed=1)
    skills = exported.skills()
    found = run(
        exported.session(), prompt(3), bank=exported.bank(skills), skill_ids=np.array([[2], [0], [1]])
    )["logits"]
    expected = oracle(exported, prompt(3), [skills[1], None, skills[0]])
    assert error(found, expected) < 1e-4
