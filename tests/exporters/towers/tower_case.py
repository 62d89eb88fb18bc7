"""Exported towers of the tiny vision-language models, made once, and the features that transformers computes."""

from __future__ import annotations

import atexit
import contextlib
import io
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
import torch
from transformers import AutoModelForImageTextToText

from lime_edge.contract.vision import VisionContract
from lime_edge.exporters.towers.contracts import FAMILIES, family_name, vision_contract
from lime_edge.exporters.towers.tower_family import TowerFamily
from lime_edge.exporters.towers.vision_graph import export_tower
from tests.support.vision.tiny_vision import tiny_vision_model

Array = npt.NDArray[Any]
TOLERANCE = 1e-5  # of the largest feature; fp32 against fp32 in another order

_FOLDER = tempfile.TemporaryDirectory()
atexit.register(_FOLDER.cleanup)


@cache
def checkpoint(name: str) -> Path:
    """A tiny model; tests must not write to it."""
    with contextlib.redirect_stderr(io.StringIO()):
        return tiny_vision_model(name, Path(_FOLDER.name) / name)


@cache
def torch_model(name: str) -> Any:
    with contextlib.redirect_stderr(io.StringIO()):
        model: Any = AutoModelForImageTextToText.from_pretrained(checkpoint(name), dtype=torch.float32)
    return model.eval()


def contract_of(name: str, tiles: int = 1) -> VisionContract:
    return vision_contract(checkpoint(name), tiles)


def family_of(name: str) -> TowerFamily:
    return FAMILIES[family_name(checkpoint(name))]


@cache
def tower(name: str) -> Path:
    """A directory with vision.onnx in fp32; tests must not write to it."""
    output = Path(_FOLDER.name) / f"{name}-tower"
    output.mkdir()
    family, model = family_of(name), torch_model(name)
    export_tower(model, family, family.probe(model, contract_of(name)), output)
    return output


def open_graph(directory: Path) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return ort.InferenceSession(directory / "vision.onnx", options, providers=["CPUExecutionProvider"])


def run(directory: Path, arrays: dict[str, Array]) -> dict[str, Array]:
    """The outputs of vision.onnx by name."""
    session = open_graph(directory)
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, arrays), strict=True))


def features(name: str, **given: Any) -> Array:
    """The features [F, H] of transformers, of all pictures in a row."""
    with torch.no_grad():
        found = torch_model(name).get_image_features(**given).pooler_output
    return torch.cat(list(found)).flatten(0, -2).numpy()


def error(found: Array, expected: Array) -> float:
    assert found.shape == expected.shape
    return float(np.abs(found - expected).max() / np.abs(expected).max())
