"""Tasks and batches: determined by the seed, with equally many rows of every task."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.multitask.data import Budget, Item, batches, read
from lime_edge.errors import DataError
from tests.benchmarks.support.suite import BUDGET, suite
from tests.support.tiny_training import tokenizer


def test_batches_are_fixed_by_the_seed_and_hold_every_task_alike() -> None:
    tasks = read(suite(), 3)
    assert len(tasks) == 21
    assert all(len(task.test) == 3 for task in tasks)
    budget = Budget(steps=7, batch=6, max_length=200)
    made = batches(tasks, tokenizer(), budget, 5)
    assert made == batches(tasks, tokenizer(), budget, 5)
    assert made != batches(tasks, tokenizer(), budget, 6)
    assert [len(batch) for batch in made] == [6] * 7
    counts = np.bincount([item.task for batch in made for item in batch], minlength=21)
    assert counts.tolist() == [2] * 21
    with pytest.raises(DataError, match="are longer than 5 tokens"):
        batches(tasks, tokenizer(), Budget(2, 6, max_length=5), 0)
    with pytest.raises(DataError) as caught:
        read(suite() / "glue", 3)
    assert len(caught.value.faults) == 42


def test_items_are_comparable() -> None:
    """Other tests compare batches, which tests nothing if items compare by identity."""
    (one, *_), *_ = batches(read(suite(), 3), tokenizer(), BUDGET, 1)
    assert one == Item(one.task, one.example)
