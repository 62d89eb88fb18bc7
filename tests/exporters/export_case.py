"""Exports of tiny models with random adapters and skills, and the expected logits from PyTorch with the definition."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import onnxruntime as ort
import torch
from transformers import AutoModelForCausalLM

from lime_edge.contract.model import ModelContract
from lime_edge.contract.routing import Routing
from lime_edge.exporters import AdaptedModule, AdapterWeights, Precision, export
from lime_edge.exporters.genai_builder import build_backbone
from lime_edge.exporters.passes.quantise_embedding import QuantiseEmbedding
from tests import reference
from tests.support.operator_case import clear_of_limits

Array = npt.NDArray[Any]

EVERY = ("q_proj", "k_proj", "v_proj", "qkv_proj", "o_proj", "gate_proj", "up_proj", "gate_up_proj", "down_proj")
HEAD = 16  # head size of the tiny models
TOLERANCE = 1e-4  # of the largest logit; fp32 against float64, through all layers


def load_torch(backbone: Path) -> torch.nn.Module:
    model: torch.nn.Module = AutoModelForCausalLM.from_pretrained(backbone, dtype=torch.float64)
    return model.eval()


def make_adapter(backbone: Path, names: tuple[str, ...] = EVERY, seed: int = 0, **others: Any) -> AdapterWeights:
    """A random shared adapter for every linear module of those names."""
    rng = np.random.default_rng(seed)
    modules: list[AdaptedModule] = []
    for name, module in load_torch(backbone).named_modules():
        if isinstance(module, torch.nn.Linear) and name.rsplit(".", 1)[-1] in names:
            rank = 2 + len(modules) % 3
            a = rng.standard_normal((rank, module.in_features), np.float32) / np.float32(8)
            b = rng.standard_normal((module.out_features, rank), np.float32) / np.float32(4)
            modules.append(AdaptedModule(name, a, b, 0.5 + rank))
    return AdapterWeights(**{"modules": tuple(modules[::-1]), "routing": Routing(experts=2), **others})


@dataclass
class Exported:
    """An exported directory and the inputs of its export."""

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
        shapes = {f"{k}.{m.name}": m.shape(k, table.experts) for m in table.modules for k in table.kinds_of(m.name)}
        size = {"expert": 1.0, "gain": 0.1, "shift": 0.1, "rank": 1.0}
        return [
            {name: (rng.standard_normal(s) * size[name.split(".")[0]]).astype(np.float32) for name, s in shapes.items()}
            for _ in range(count)
        ]

    def bank(self, skills: list[dict[str, Array]]) -> Array:
        return self.contract.table.bank(skills, np.float32 if self.contract.precision == "fp32" else np.float16)[0]

    def ids(self, rows: Any) -> Array:
        """Skill ids of rows of `bank`, whose skills have as many experts as the model."""
        return -np.array(rows) if self.contract.routing.experts > 1 else np.array(rows)


def make_export(backbone: Path, output: Path, precision: Precision = "fp32", **others: Any) -> Exported:
    adapter = make_adapter(backbone, **others)
    contract = export(adapter, backbone, output, precision, overwrite=True)
    return Exported(output, contract, adapter, backbone)


def build_reference(backbone: Path, output: Path, precision: Precision) -> None:
    """The graph whose bits an export without skills has: the builder's, in int4 with an embedding table of 8 bits."""
    build_backbone(backbone, output, precision)
    if precision == "int4":
        model = ir.load(output / "model.onnx")
        if QuantiseEmbedding()(model).modified:
            ir.save(model, output / "rounded.onnx", external_data="rounded.onnx.data")
            (output / "rounded.onnx").replace(output / "model.onnx")


def make_session(
    path: Path, level: Any = ort.GraphOptimizationLevel.ORT_ENABLE_ALL, library: Path | None = None
) -> ort.InferenceSession:
    options = ort.SessionOptions()
    if library is not None:
        options.register_custom_ops_library(str(library))
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    options.graph_optimization_level = level
    return ort.InferenceSession(path / "model.onnx", options, providers=["CPUExecutionProvider"])


def run(
    session: ort.InferenceSession, ids: Array, past: dict[str, Array] | None = None, **fed: Array
) -> dict[str, Any]:
    """Outputs of one call by name. `past` has the outputs of the previous call."""
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
    """Logits of the float64 Hugging Face model with the definition in every adapted module, row by row."""
    model, routing = load_torch(exported.backbone), exported.adapter.routing
    table = exported.contract.table

    def hook_for(own: AdaptedModule) -> Any:
        a, b = own.a.astype(np.float64), own.b.astype(np.float64)

        def hook(module: Any, args: tuple[torch.Tensor, ...], _: torch.Tensor) -> torch.Tensor:
            bias = None if module.bias is None else module.bias.numpy()
            rows = []
            for x, skill in zip(args[0].numpy(), skills, strict=True):
                vectors: dict[str, Array] = (
                    {k: skill[f"{k}.{own.name}"].astype(np.float64) for k in table.kinds_of(own.name)} if skill else {}
                )
                out, logits = reference.lime_linear(x, module.weight.numpy(), bias, a, b, own.scale, vectors, routing)
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


def contents(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def replaced(adapter: AdapterWeights, **changes: Any) -> AdapterWeights:
    """The adapter with its first module changed."""
    return replace(adapter, modules=(replace(adapter.modules[0], **changes), *adapter.modules[1:]))
