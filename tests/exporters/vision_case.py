"""Exports of the tiny vision-language models with random adapters, made once, and prompts with pictures."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
import torch

from lime_edge.contract.routing import Routing
from lime_edge.exporters import AdaptedModule, AdapterWeights, Precision, export
from lime_edge.exporters.towers import vision_model
from lime_edge.exporters.towers.torch_parity import Prompt, prompt_of, torch_features
from tests.exporters.export_case import HEAD, Exported
from tests.exporters.towers.tower_case import checkpoint, contract_of, family_of, torch_model, tower

Array = npt.NDArray[Any]
PROJECTIONS = ("q_proj", "o_proj", "up_proj")

_FOLDER = tempfile.TemporaryDirectory()
atexit.register(_FOLDER.cleanup)


def decoder_adapter(name: str, seed: int = 0) -> AdapterWeights:
    """A random shared adapter for some projections of the decoder of a tiny model."""
    rng = np.random.default_rng(seed)
    decoder = torch_model(name).get_decoder()
    modules = []
    for path, module in torch_model(name).named_modules():
        inside = any(module is part for part in decoder.modules())
        if inside and isinstance(module, torch.nn.Linear) and path.rsplit(".", 1)[-1] in PROJECTIONS:
            a = rng.standard_normal((4, module.in_features), np.float32) / np.float32(8)
            b = rng.standard_normal((module.out_features, 4), np.float32) / np.float32(4)
            modules.append(AdaptedModule(path, a, b, 2.0))
    return AdapterWeights(modules=tuple(modules), routing=Routing(experts=2))


def exported(name: str, precision: Precision = "fp32") -> Exported:
    """A model directory with its tower in fp32 (which `tower_case` has exported once); tests must not write to it."""
    return _exported(name, precision)


@cache
def _exported(name: str, precision: Precision) -> Exported:

    def copied(model: Any, family: Any, probe: Any, output: Path) -> None:
        for file in tower(name).iterdir():
            shutil.copyfile(file, output / file.name)

    path = Path(_FOLDER.name) / f"{name}-{precision}"
    adapter = decoder_adapter(name)
    with mock.patch.object(vision_model, "export_tower", copied):
        contract = export(adapter, checkpoint(name), path, precision, vision="fp32")
    return Exported(path, contract, adapter, checkpoint(name))


@cache
def prompt(name: str) -> Prompt:
    """Text and the pictures of the family's probe (two, where several tiles are no one picture)."""
    contract, model = contract_of(name), torch_model(name)
    probe = family_of(name).probe(model, contract)
    return prompt_of(model, contract, probe, torch_features(model, probe))


def run(
    session: ort.InferenceSession,
    prompt: Prompt,
    start: int = 0,
    stop: int | None = None,
    past: dict[str, Array] | None = None,
    **fed: Array,
) -> dict[str, Any]:
    """Outputs for the tokens from `start` to `stop`; `past` has the outputs of the previous call."""
    ids = prompt.input_ids[:, start:stop]
    rows, count = ids.shape
    positions = np.arange(prompt.input_ids.shape[1])[None] if prompt.position_ids is None else prompt.position_ids
    feed: dict[str, Array] = {"input_ids": ids, "attention_mask": np.ones((rows, start + count), np.int64)}
    for wanted in session.get_inputs():
        if wanted.name == "position_ids":
            feed["position_ids"] = positions[..., start:stop]
        elif wanted.name.startswith("past_key_values."):
            dtype = np.float16 if wanted.type == "tensor(float16)" else np.float32
            empty = np.zeros((rows, wanted.shape[1], 0, HEAD), dtype)
            feed[wanted.name] = past[wanted.name.replace("past_key_values", "present")] if past else empty
    feed |= {f"lime.{name}": value for name, value in fed.items()}
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, feed), strict=True))


def pictures(prompt: Prompt, start: int = 0, stop: int | None = None) -> dict[str, Any]:
    """The inputs that put the pictures of a prompt in place."""
    return {"features": prompt.features, "feature_ids": prompt.feature_ids[:, start:stop]}
