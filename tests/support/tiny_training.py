"""Tiny wrapped models and JSONL tasks for the tests of method and training."""

from __future__ import annotations

import atexit
import json
import shutil
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from lime_edge.contract.routing import Routing
from lime_edge.method.config import ATTENTION, LimeConfig
from lime_edge.training import backbone as backbones
from lime_edge.training import checkpoint
from tests.support.tiny import tiny_model

EXPERTS = Routing(experts=3)
TARGETS = {"phi3": ["qkv_proj", "o_proj"]}  # architectures without the four projections of the paper


@cache
def scratch() -> Path:
    """A temporary folder that is removed when the process exits."""
    path = Path(tempfile.mkdtemp(prefix="lime-training-"))
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    return path


@cache
def backbone_dir(architecture: str = "llama") -> Path:
    torch.set_num_threads(1)  # the matrices are too small for a second thread
    return tiny_model(architecture, scratch() / architecture)


@cache
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(backbone_dir(), local_files_only=True)


def backbone(architecture: str = "llama", dtype: torch.dtype = torch.float32) -> Any:
    """A fresh copy of the tiny backbone."""
    return AutoModelForCausalLM.from_pretrained(backbone_dir(architecture), dtype=dtype, local_files_only=True)


def wrapped(architecture: str = "llama", seed: int = 1, **config: Any) -> Any:
    """The tiny backbone with LiME layers, every adapter parameter random, in evaluation mode."""
    settings: dict[str, Any] = {"r": 4, "routing": EXPERTS, **config}
    settings.setdefault("target_modules", TARGETS.get(architecture, list(ATTENTION)))
    torch.manual_seed(seed)
    model = checkpoint.wrap(backbone(architecture), LimeConfig(**settings))
    randomise(model, seed)
    return model.eval()


def randomise(model: Any, seed: int, size: float = 0.5) -> None:
    """Fill every adapter parameter, shared or vector, of every adapter with random values."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lime_" in name:
                parameter.copy_(size * torch.randn(parameter.shape, generator=generator))


def save(model: Any, directory: Path, architecture: str = "llama") -> Path:
    """Save a wrapped model as a checkpoint, as `train` does."""
    config = checkpoint.tuner(model).lime_config
    config.base_model_name_or_path = str(backbone_dir(architecture))
    config.backbone_digest = backbones.digest(backbone_dir(architecture))
    model.save_pretrained(str(directory), save_embedding_layers=False)
    return directory


def ids(rows: int, tokens: int, seed: int = 0) -> torch.Tensor:
    """Random token ids [B, S]."""
    return torch.randint(3, 300, (rows, tokens), generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def logits(model: Any, tokens: torch.Tensor, **others: Any) -> torch.Tensor:
    """Logits [B, S, V]."""
    found: torch.Tensor = model(input_ids=tokens, **others).logits
    return found


def write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    return path


@cache
def tasks() -> Path:
    """Data that a tiny model learns in a few steps: two tasks in ``tasks``, and one with choices in ``skill``."""
    folder = scratch() / "data"
    for split, numbers in (("train", range(10)), ("valid", range(10, 13))):
        for task, answer in (("first", "yes"), ("second", "no")):
            rows = [{"prompt": f"{task} {i}" + "x" * (i % 5), "answer": answer} for i in numbers]
            write_rows(folder / "tasks" / task / f"{split}.jsonl", rows)
        choices = [{"prompt": f"which {i}", "answer": "lime", "choices": ["lime", "no", "yes"]} for i in numbers]
        write_rows(folder / "skill" / f"{split}.jsonl", choices)
    return folder
