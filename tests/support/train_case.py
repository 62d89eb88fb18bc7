"""Training runs of a few steps on a tiny model, for the tests of `train` and `learn`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch

from lime_edge.contract.model import ModelContract
from lime_edge.contract.routing import Routing
from lime_edge.method.config import ATTENTION, LimeConfig
from lime_edge.skills.manifest import Made
from lime_edge.skills.package import Skill
from lime_edge.training.dataset import Collator
from lime_edge.training.export_checkpoint import export_checkpoint
from lime_edge.training.plan import TrainingPlan
from lime_edge.training.train_adapter import train
from tests.support.tiny_training import backbone_dir, scratch, tasks

ROUTING = Routing(experts=3, window=2)
PLAN = TrainingPlan(steps=3, batch=4, vector_rate=3e-2, shared_rate=1e-2, save_every=100)


def run(
    output: Path, plan: TrainingPlan = PLAN, resume: bool = False, valid: bool = False, **config: Any
) -> dict[str, float]:
    settings: dict[str, Any] = {"r": 4, "routing": ROUTING, "target_modules": list(ATTENTION), **config}
    named = [tasks() / "tasks" / task for task in ("first", "second")]
    given = [str(folder if valid else folder / "train.jsonl") for folder in named]
    return train(given, str(backbone_dir()), output, LimeConfig(**settings), plan, resume=resume)


@cache
def trained() -> tuple[Path, dict[str, float]]:
    output = scratch() / "checkpoint"
    return output, run(output, dataclasses.replace(PLAN, steps=20, save_every=10), valid=True)


@cache
def exported(rank_gate: bool) -> tuple[Path, ModelContract]:
    output = scratch() / f"model-{rank_gate}"
    return output, export_checkpoint(trained()[0], output, "fp32", rank_gate)


def made(skill: Skill) -> Made:
    """How a skill says that it came to be."""
    assert skill.manifest.made is not None
    return skill.manifest.made


def dies_after(batches: int) -> type[Collator]:
    """A collator that interrupts the run after this many training batches."""

    class Dies(Collator):
        made = 0

        def __call__(self, items: Sequence[dict[str, Any]]) -> dict[str, Any]:
            Dies.made += torch.is_grad_enabled()
            if Dies.made > batches:
                raise KeyboardInterrupt
            return super().__call__(items)

    return Dies
