"""The first skill keeps its bits exactly as long as the shared adapter is frozen."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks.parity import isolation
from lime_edge.evaluation.examples import read_rows
from lime_edge.training.learn_skill import Recipe, prepare
from lime_edge.training.plan import TrainingPlan
from tests.support.tiny_training import tasks

pytestmark = [
    pytest.mark.usefixtures("float32"),
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning"),  # from PEFT
]


@pytest.mark.parametrize("frozen", [True, False])
def test_the_first_skill_keeps_its_bits_while_the_adapter_is_frozen(frozen: bool, shared: Path) -> None:
    model, tokens, _ = prepare(shared, Recipe("skill", expert=True), torch.float32)
    if not frozen:
        isolation.thaw(model)
    some = read_rows(tasks() / "skill" / "train.jsonl")
    plan = TrainingPlan(steps=2, batch=2, vector_rate=1e-2, shared_rate=1e-2)  # the first step has a rate of 0
    changes = list(isolation.sequence(model, tokens, [some] * 5, some[:2], [plan] * 5))
    assert [change["skills"] for change in changes] == [1, 2, 5]
    assert all(change["same_bits"] for change in changes) == frozen
    assert (changes[-1]["largest_change"] == 0) == frozen
    report = isolation.report(dict.fromkeys(isolation.WAYS, changes))
    assert len(report.splitlines()) == 2 + len(changes)
