"""Tiny exported models and skills for the runtime's tests, and a plain implementation to compare with."""

from __future__ import annotations

import atexit
import json
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from lime_edge.contract.model import ModelContract, read_contract
from lime_edge.contract.routing import Routing
from lime_edge.contract.vector_kinds import KINDS
from lime_edge.exporters import AdaptedModule, AdapterWeights, export
from lime_edge.runtime import Runtime
from lime_edge.runtime.text.prompts import Text
from lime_edge.skills.draft_table import DraftTable
from lime_edge.skills.manifest import Manifest
from lime_edge.skills.package import read_skill, write_skill
from tests.support.tiny import tiny_model, tiny_tokenizer

Array = npt.NDArray[Any]
HIDDEN, INSIDE, HEAD, RANK, LAYERS = 64, 96, 16, 4, 2
PROMPTS = ["Hello", "a much longer question: é中😀 what is the answer to the other one?", "is it so?", "no"]


@cache
def scratch() -> Path:
    """A folder that is deleted when the process ends."""
    path = Path(tempfile.mkdtemp(prefix="lime-runtime-"))
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    return path


def exported(window: int = 1, precision: Any = "fp32", architecture: str = "llama") -> Path:
    """A tiny exported model directory; tests must not write to it."""
    source, target = scratch() / architecture, scratch() / f"{architecture}-{precision}-{window}"
    if target.exists():
        return target
    if not source.exists():
        tiny_model(architecture, source)
    export(weights(window), source, target, precision)
    return target


def weights(window: int = 1) -> AdapterWeights:
    """A random shared adapter for the tiny models."""
    rng = np.random.default_rng(1)
    modules = [
        AdaptedModule(f"model.layers.{layer}.{name}", _normal(rng, RANK, d), _normal(rng, h, RANK), 0.1)
        for layer in range(LAYERS)
        for name, d, h in (
            ("self_attn.q_proj", HIDDEN, 64),
            ("self_attn.o_proj", 64, HIDDEN),
            ("mlp.up_proj", HIDDEN, INSIDE),
        )
    ]
    gain_only = ("up_proj",)  # as in the shipped model
    routing = Routing(experts=3, window=window)
    return AdapterWeights(tuple(modules), routing, KINDS, "token", "tiny", "main", "b" * 64, "a" * 64, gain_only)


def runtime(directory: Path, *names: str, **manifest: Any) -> Runtime:
    """A runtime with random skills of these names."""
    made = Runtime.load(directory, threads=1)
    for name in names:
        made.load_skill(skill(directory, name, **manifest))
    return made


def makers(receipt: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a receipt that says who answered; the rest says how."""
    return {key: value for key, value in receipt.items() if key not in ("tokens", "switches", "past", "route")}


def answer_ids(made: Runtime, **arguments: Any) -> tuple[int, ...]:
    """The tokens of a short answer to the prompt "Hello"."""
    found: tuple[int, ...] = made.generate("Hello", max_new_tokens=6, **arguments).token_ids
    return found


@cache
def tiny_text() -> Text:
    """A tokenizer with a chat template."""
    folder = scratch() / "text"
    folder.mkdir()
    return Text(tiny_tokenizer(folder), [2])


def edit_json(file: Path, change: Callable[[Any], None]) -> None:
    """Change the document in a JSON file."""
    document = json.loads(file.read_text("utf-8"))
    change(document)
    file.write_text(json.dumps(document), "utf-8")


def contract(directory: Path) -> ModelContract:
    return read_contract(directory)


def skill(
    directory: Path, name: str, seed: int = 0, size: float = 0.5, draft: DraftTable | None = None, **manifest: Any
) -> Path:
    """Write a random skill for a model and return its file."""
    found = contract(directory)
    rng = np.random.default_rng([seed, *name.encode()])
    tensors = {
        f"{kind}.{module.name}": size * _normal(rng, *module.shape(kind, found.table.experts))
        for module in found.table.modules
        for kind in found.table.kinds_of(module.name)
    }
    whole: dict[str, Any] = {
        "name": name,
        "version": "1.0.0",
        "backbone": found.backbone_digest,
        "adapter": found.adapter_digest,
        "modules": found.table.digest,
        "routing": found.routing,
        "created": "2026-01-31",
        **manifest,
    }
    folder = Path(tempfile.mkdtemp(dir=scratch()))
    return write_skill(folder / f"{name}.lime", Manifest(**whole), tensors, "f16", draft=draft).path


class Plain:
    """Runs the same graph without cache or batches: one whole sequence at a time.

    Args:
        directory: An exported model.
        path: A skill, or None for the base.
        activation: "always" or "response".
    """

    def __init__(self, directory: Path, path: Path | None = None, activation: str = "always") -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        self._session = ort.InferenceSession(directory / "model.onnx", options, providers=["CPUExecutionProvider"])
        self._table = contract(directory).table
        dtype = np.float32 if contract(directory).precision == "fp32" else np.float16
        self._bank, self._ids = self._table.bank([] if path is None else [read_skill(path).tensors], dtype)
        self._activation = activation

    def __call__(self, ids: Sequence[int], boundary: int = 0) -> Array:
        """Logits [S, V] of a sequence whose answer's turn begins at `boundary`."""
        start = boundary if self._activation == "response" else 0
        tokens = np.array([ids])
        feeds = {
            "input_ids": tokens,
            "attention_mask": np.ones_like(tokens),
            "lime.bank": self._bank,
            "lime.skill_ids": np.where(np.arange(len(ids)) >= start, self._ids[-1], 0)[None],
        }
        for value in self._session.get_inputs():
            if value.name.startswith("past_key_values"):
                feeds[value.name] = np.zeros((1, value.shape[1], 0, HEAD), np.float32)
        logits: Array = self._session.run(["logits"], feeds)[0][0]
        return logits

    def answer(self, ids: Sequence[int], boundary: int, count: int) -> list[int]:
        """Decode greedily; every step runs the whole sequence again."""
        whole = list(ids)
        while len(whole) < len(ids) + count:
            whole.append(int(self(whole, boundary)[-1].argmax()))
        return whole[len(ids) :]


def _normal(rng: np.random.Generator, *shape: int) -> npt.NDArray[np.float32]:
    return rng.standard_normal(shape).astype(np.float32)
