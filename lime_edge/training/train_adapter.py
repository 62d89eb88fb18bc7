"""Trains a checkpoint: one shared adapter on many tasks, and ``general.lime`` from the vectors trained with it."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import asdict
from itertools import chain
from pathlib import Path

import torch

from lime_edge.errors import ConfigError
from lime_edge.evaluation.examples import Row, find_files, read_rows
from lime_edge.method import distributed
from lime_edge.method.config import LimeConfig

from . import backbone, checkpoint
from .dataset import Collator, Examples
from .general_skill import general_skill
from .plan import TrainingPlan
from .predictor import pad_id
from .trainer import fit, unwritable
from .training_rows import keep_apart

_VALID_ROWS = 96  # rows of the validation loss, spread evenly over the tasks


def train(
    data: Sequence[str],
    model: str,
    output: Path,
    config: LimeConfig,
    plan: TrainingPlan,
    max_length: int = 512,
    resume: bool = False,
) -> dict[str, float]:
    """Train a checkpoint.

    Args:
        data: Data files, one task each, or folders with train.jsonl and, optionally, valid.jsonl files at any depth
            (docs/data.md has all formats). Rows whose prompt is also in the validation files are left out.
        model: "default", a directory, or a name on the Hugging Face Hub.
        output: The checkpoint directory to create.
        config: Which variant to put on which modules.
        plan: How long and how fast.
        max_length: In tokens; longer rows are left out.
        resume: Continue an interrupted run.

    Returns:
        The figures of `trainer.fit`, and the counts of `DataFacts`.

    Raises:
        ConfigError, DataError: Arguments or rows cannot be used; every fault is named.
    """
    distributed.join()
    if distributed.first():
        _check(output, max_length, resume)
    tasks = [read_rows(path) for path in find_files(data, "train")]
    folders = [path for path in data if Path(path).is_dir()]
    valid_tasks = [read_rows(path) for path in find_files(folders, "valid", optional=True)]
    rows = keep_apart(list(chain.from_iterable(tasks)), list(chain.from_iterable(valid_tasks)))
    if distributed.first():
        backbone.resolve(model)  # downloaded by one process
    distributed.meet()
    where = backbone.resolve(model)
    config.backbone_digest = backbone.digest(where)
    net, tokenizer = backbone.load(where, backbone.training_dtype())
    net.config._name_or_path = model
    config.base_model_name_or_path = model
    torch.manual_seed(plan.seed)  # for the new adapter; the Trainer sets its own seed
    wrapped = checkpoint.wrap(net, config)
    train_set = Examples(tokenizer, rows.train, max_length)
    valid_rows = _spread(valid_tasks, plan.seed) if valid_tasks else []
    valid_set = Examples(tokenizer, valid_rows, max_length) if valid_rows else None
    if distributed.first():
        rows.report(train_set)
    figures = fit(wrapped, train_set, valid_set, Collator(pad_id(tokenizer)), plan, output / "run", resume)
    if distributed.first():
        wrapped.save_pretrained(str(output), save_embedding_layers=False)
        general_skill(output, valid_rows)
    distributed.meet()
    return figures | asdict(rows.facts(train_set))


def _check(output: Path, max_length: int, resume: bool) -> None:
    if isinstance(max_length, bool) or not isinstance(max_length, int) or max_length < 2:
        raise ConfigError(f"max_length is {max_length!r}; expected a whole number from 2")
    if faults := unwritable(output):
        raise ConfigError("the checkpoint cannot be written", faults)
    if output.exists() and any(output.iterdir()) and not resume:
        raise ConfigError(f"{output} is not empty; choose another folder, or --resume")


def _spread(tasks: Sequence[Sequence[Row]], seed: int) -> list[Row]:
    """About `_VALID_ROWS` rows, the same number of each task, drawn at random."""
    share = max(1, _VALID_ROWS // len(tasks))
    pick = random.Random(seed)
    return [row for task in tasks for row in pick.sample(task, min(share, len(task)))]
