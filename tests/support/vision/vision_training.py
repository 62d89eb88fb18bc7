"""Rows with pictures, and checkpoints of tiny vision-language models, for the training tests."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer
from transformers import AutoModelForImageTextToText, LlamaConfig, LlamaForCausalLM

from lime_edge.backbones.efficientnet_lite import EfficientNetLite
from lime_edge.backbones.lime_vision import register
from lime_edge.contract.routing import Routing
from lime_edge.method.config import LimeConfig
from lime_edge.training.pictures.vision_backbone import IMAGE_TOKEN, build
from lime_edge.training.plan import TrainingPlan
from lime_edge.training.train_adapter import train
from tests.support.tiny import tiny_tokenizer
from tests.support.tiny_training import scratch, write_rows
from tests.support.vision.pictures import write_png
from tests.support.vision.tiny_vision import SIZE, tiny_vision_model

CHOICES = ["lime", "lemon"]
PLAN = TrainingPlan(steps=2, batch=4, vector_rate=3e-2, shared_rate=1e-2, save_every=100)


@cache
def pictures() -> Path:
    """A folder with train.jsonl and valid.jsonl; one question about twelve pictures, and one row of text."""
    folder = scratch() / "pictures"
    for split, numbers in (("train", range(8)), ("valid", range(8, 12))):
        rows: list[dict[str, Any]] = []
        for number in numbers:
            write_png(folder / "images" / f"{number}.png", number, 20 + number)
            answer = CHOICES[number % 2]
            rows.append({"prompt": "which?", "answer": answer, "choices": CHOICES, "images": [f"images/{number}.png"]})
        write_rows(folder / f"{split}.jsonl", rows)
    return folder


@cache
def model_dir(family: str) -> Path:
    return tiny_vision_model(family, scratch() / "vision" / family)


@cache
def checkpoint_of(family: str) -> Path:
    """A checkpoint trained for two steps."""
    output = scratch() / "vision-checkpoints" / family
    config = LimeConfig(r=4, routing=Routing(experts=3), target_modules=["o_proj", "up_proj"])
    train([str(pictures())], str(model_dir(family)), output, config, PLAN)
    return output


@cache
def language_model_dir() -> Path:
    """A tiny language model whose tokenizer has the image token of our family."""
    directory = scratch() / "language-model"
    directory.mkdir()
    torch.manual_seed(0)
    shape: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 64}
    shape |= {"num_hidden_layers": 2, "num_attention_heads": 2}
    config = LlamaConfig(**shape, vocab_size=SIZE, max_position_embeddings=512, tie_word_embeddings=True)
    LlamaForCausalLM(config).save_pretrained(directory)
    path = str(tiny_tokenizer(directory) / "tokenizer.json")
    tokenizer = Tokenizer.from_file(path)
    tokenizer.add_special_tokens([AddedToken(IMAGE_TOKEN, special=True, normalized=False)])
    tokenizer.save(path)
    return directory


@cache
def lime_vision_dir() -> Path:
    """A tiny model of our own family with random weights."""
    target = scratch() / "lime-vision"
    torch.manual_seed(0)
    tower = EfficientNetLite()
    for part in tower.modules():
        if isinstance(part, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(part.weight)
    build(language_model_dir(), tower.state_dict(), target, 24)
    return target


def lime_vision_model() -> Any:
    register()
    model: Any = AutoModelForImageTextToText.from_pretrained(lime_vision_dir(), dtype=torch.float32)
    return model.eval()


@cache
def lime_vision_checkpoint() -> Path:
    """A checkpoint of the tiny model of our own family, trained for two steps."""
    output = scratch() / "lime-vision-checkpoint"
    train([str(pictures())], str(lime_vision_dir()), output, LimeConfig(r=4, routing=Routing(experts=3)), PLAN)
    return output
