"""Writes ``general.lime``: the vectors trained together with the shared adapter, as a skill package."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from lime_edge.evaluation.examples import Row
from lime_edge.skills.manifest import Manifest
from lime_edge.skills.package import write_skill
from lime_edge.training.package_parts.golden_prompts import golden_prompts, made_for, today

from . import checkpoint
from .predictor import Predictor

NAME = "general"
_PROMPTS = 2


def general_skill(checkpoint_dir: Path, rows: Sequence[Row] = ()) -> Path:
    """Write ``general.lime`` into a checkpoint: the skill to use before any other is learned on it.

    Args:
        checkpoint_dir: The checkpoint, from `lime-edge train`.
        rows: Source of its golden prompts; may be empty.

    Returns:
        The path of the package.

    Raises:
        ConfigError: Not a checkpoint, or not of this backbone.
    """
    model, tokenizer, where = checkpoint.open_checkpoint(checkpoint_dir, torch.float32)
    manifest = Manifest(
        name=NAME,
        version="1.0.0",
        description="What the shared adapter was trained on, all tasks together.",
        created=today(),
        activation="always",
        **made_for(model, where),
    )
    path = checkpoint_dir / f"{NAME}.lime"
    skill = write_skill(path, manifest, checkpoint.get_vectors(model), "f16")
    checkpoint.set_vectors(model, skill.tensors)
    golden = golden_prompts(Predictor(model, tokenizer), rows, _PROMPTS)
    return write_skill(path, replace(manifest, golden=golden), skill.tensors, "f16").path
