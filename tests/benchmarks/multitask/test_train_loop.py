"""A training run that is killed after every step ends with the same numbers as one that is not."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
import torch

from benchmarks.multitask.data import batches, read
from benchmarks.multitask.methods import METHODS, Facts
from benchmarks.multitask.train_loop import OutOfTimeError, Run
from lime_edge.training.dataset import Collator
from lime_edge.training.plan import TrainingPlan
from lime_edge.training.trainer import parameter_groups
from tests.benchmarks.support.suite import BUDGET, suite
from tests.support.tiny_training import backbone, tokenizer


def trained(method: str, state: Path, stamp: str = "s", deadline: float | None = None) -> Run:
    """A run of a method on the tiny backbone, with its state in a file."""
    tasks = read(suite(), 3)
    made = batches(tasks, tokenizer(), BUDGET, 1)
    torch.manual_seed(1)
    net = backbone()
    model = METHODS[method].build(net, Facts(21, [[3], [4]], 1)).model
    groups = [
        group | {"top": group["lr"]}
        for group in parameter_groups(model, TrainingPlan(shared_rate=1e-2, vector_rate=1e-2))
    ]
    collator = Collator(2)

    def collate(items: Any) -> dict[str, Any]:
        return collator([{"example": item.example} for item in items])

    def tell(items: Any) -> None:
        if hasattr(model, "set_rows"):
            cast(Any, model).set_rows(torch.tensor([item.task for item in items]), None)

    return Run(model, net, groups, made, collate, tell, 1, state, stamp, deadline)


@pytest.mark.parametrize("method", ["lime-lora", "more", "lora"])
def test_a_killed_run_goes_on_to_the_same_numbers(tmp_path: Path, method: str) -> None:
    whole = trained(method, tmp_path / "whole")
    wanted = whole.fit(lambda text: None)
    path = tmp_path / "killed"
    for left in range(4):  # the deadline stops it after every step
        piece = trained(method, path, deadline=0.0)
        if left < 3:
            with pytest.raises(OutOfTimeError):
                piece.fit(lambda text: None)
    found = piece.fit(lambda text: None)
    assert found.losses == wanted.losses
    assert found.tokens == wanted.tokens
    theirs = dict(whole.model.named_parameters())
    for name, parameter in piece.model.named_parameters():
        assert torch.equal(parameter, theirs[name]), name
    with pytest.raises(ValueError, match="belongs to another run"):
        trained(method, path, stamp="other").fit(lambda text: None)
