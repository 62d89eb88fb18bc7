"""`lime_vision`: vision.onnx against the model class."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

import numpy as np
import torch
from transformers import LlamaConfig

from lime_edge.backbones.lime_vision import TOKENS, LimeVisionConfig, LimeVisionForConditionalGeneration
from lime_edge.contract.vision import Pixels, Tiles
from lime_edge.exporters.towers.contracts import vision_contract
from lime_edge.exporters.towers.vision_model import VisionModel
from tests.exporters.towers.tower_case import error, run
from tests.support.tiny import _SHAPE, tiny_tokenizer


def tiny_model(directory: Path) -> Path:
    text = LlamaConfig(**_SHAPE | {"head_dim": 16, "tie_word_embeddings": True})
    torch.manual_seed(0)
    config = LimeVisionConfig(text_config=text, image_token_id=2, projector_width=32)
    model = LimeVisionForConditionalGeneration(config).train(False)
    with contextlib.redirect_stderr(io.StringIO()):
        model.save_pretrained(directory)
    tiny_tokenizer(directory)
    return directory


def test_features_are_those_of_the_model(tmp_path: Path) -> None:
    opened = VisionModel.open(tiny_model(tmp_path / "model"), 1)
    (tmp_path / "out").mkdir()
    assert opened.write(tmp_path / "out", "fp32") == ("vision.onnx", "vision.onnx.data", "vision.json")
    pixels = np.random.default_rng(1).standard_normal((3, 3, 224, 224), np.float32)
    found = run(tmp_path / "out", {"pixel_values": pixels})["features"]
    with torch.no_grad():
        expected = opened.model.get_image_features(torch.from_numpy(pixels)).pooler_output.numpy()
    assert found.shape == (3, TOKENS, 64)
    assert error(found, expected) < 1e-4


def test_a_picture_is_resized_to_one_tile(tmp_path: Path) -> None:
    contract = vision_contract(tiny_model(tmp_path))
    assert contract.tiles == Tiles(224, 224, 32, TOKENS)
    assert contract.pixels == Pixels("bicubic", 1.0, (127.0,) * 3, (128.0,) * 3)
    assert (contract.image_token, contract.video) == ("<|im_end|>", None)
