"""Compares an exported model that sees with transformers: the features of a picture, and the logits of a prompt."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnxruntime as ort
import torch

from lime_edge.contract.names import FEATURE_IDS, FEATURES, GENAI_CONFIG, GRAPH_FILE, VISION_FILE
from lime_edge.contract.vision import VisionContract

from .tower_family import Array, Probe, TowerFamily

#: Largest error of the features of vision.onnx, of the root mean square.
FEATURE_LIMITS = {"fp32": 1e-3, "int8": 0.15}
#: Largest error of the logits, of the root mean square. Weights of 4 bits change a small random model much.
LOGIT_LIMITS = {"fp32": 1e-3, "fp16": 3e-2, "int4": 0.6}
_TEXT = 3  # tokens of text before, between and after pictures


class Prompt(NamedTuple):
    """Text and pictures as transformers and the exported graph take them; features are those of transformers."""

    input_ids: Array  # [1, S]
    feature_ids: Array  # [1, S]
    features: Array  # [F, H]
    position_ids: Array | None  # [3, 1, S] for decoders with positions in three dimensions
    logits: Array  # [1, S, V], of transformers


def torch_features(model: Any, probe: Probe) -> list[Array]:
    """The features of each picture, [F, H]."""
    with torch.no_grad():
        found = model.get_image_features(**probe.given).pooler_output
    return [picture.flatten(0, -2).numpy() for picture in found]


def feature_faults(
    features: list[Array], family: TowerFamily, probe: Probe, directory: Path, precision: str
) -> list[str]:
    """What is wrong with vision.onnx: an error above `FEATURE_LIMITS`."""
    session = _session(directory / VISION_FILE)
    names = [output.name for output in session.get_outputs()]
    outputs = dict(zip(names, session.run(names, probe.arrays), strict=True))
    off = distance(family.packed(outputs), np.concatenate(features))
    if off <= FEATURE_LIMITS[precision]:
        return []
    hint = "; export the tower as fp32" if precision == "int8" else ""
    return [f"features differ by {off:.3g} of their size; expected at most {FEATURE_LIMITS[precision]:g}{hint}"]


def prompt_of(model: Any, contract: VisionContract, probe: Probe, features: list[Array]) -> Prompt:
    """A prompt with the probe's pictures, and its logits from transformers."""
    token = contract.image_token_id
    text = np.delete(np.arange(2 * _TEXT + 1), token if token <= 2 * _TEXT else [])[:_TEXT]
    pieces, rows, start = [text], [np.full(_TEXT, -1)], 0
    for picture in features:
        pieces += [np.full(len(picture), token), text]
        rows += [np.arange(start, start + len(picture)), np.full(_TEXT, -1)]
        start += len(picture)
    ids, places = np.concatenate(pieces)[None], np.concatenate(rows)[None]
    given, positions = dict(probe.given), None
    if contract.rotary_3d:
        kinds = torch.from_numpy((places >= 0).astype(np.int32))
        grid = given["image_grid_thw"]
        positions = model.model.get_rope_index(torch.from_numpy(ids), kinds, image_grid_thw=grid)[0].numpy()
        given["mm_token_type_ids"] = kinds
    with torch.no_grad():
        logits = model(input_ids=torch.from_numpy(ids), **given).logits.numpy()
    return Prompt(ids, places, np.concatenate(features), positions, logits)


def logit_faults(prompt: Prompt, directory: Path, precision: str) -> list[str]:
    """What is wrong with model.onnx: an error above `LOGIT_LIMITS`."""
    off = distance(exported_logits(prompt, directory), prompt.logits)
    if off <= LOGIT_LIMITS[precision]:
        return []
    return [f"logits differ by {off:.3g} of their size; expected at most {LOGIT_LIMITS[precision]:g}"]


def exported_logits(prompt: Prompt, directory: Path) -> Array:
    """The logits of the exported decoder, without a skill, [1, S, V]."""
    session = _session(directory / GRAPH_FILE)
    count = prompt.input_ids.shape[1]
    positions = np.arange(count)[None] if prompt.position_ids is None else prompt.position_ids
    fed: dict[str, Array] = {
        "input_ids": prompt.input_ids,
        "attention_mask": np.ones((1, count), np.int64),
        "position_ids": positions,
        FEATURES: prompt.features.astype(np.float32),
        FEATURE_IDS: prompt.feature_ids,
    }
    wanted = {value.name: value for value in session.get_inputs()}
    decoder = json.loads((directory / GENAI_CONFIG).read_text("utf-8"))["model"]["decoder"]
    for name, value in wanted.items():
        if name.startswith("past_key_values."):
            dtype = np.float16 if value.type == "tensor(float16)" else np.float32
            fed[name] = np.zeros((1, decoder["num_key_value_heads"], 0, decoder["head_size"]), dtype)
    optional = {FEATURES, FEATURE_IDS}
    feed = {name: value for name, value in fed.items() if name in wanted or name in optional}
    logits: Array = session.run(["logits"], feed)[0]
    return logits.astype(np.float32)


def distance(found: Array, expected: Array) -> float:
    """Root mean square of the difference, as a share of that of the expected values; infinite for other shapes."""
    if found.shape != expected.shape or not np.isfinite(found).all():
        return float("inf")
    exact = expected.astype(np.float64)
    return float(np.sqrt(np.square(found - exact).mean() / np.square(exact).mean()))


def _session(path: Path) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
