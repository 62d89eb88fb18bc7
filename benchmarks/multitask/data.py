"""The text tasks of the suite, and the order of batches, which is the same for every method.

A task is a folder CATEGORY/TASK with train, valid and test rows, as the suite's MANIFEST.md describes.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lime_edge.errors import DataError
from lime_edge.evaluation.examples import Row, read_rows
from lime_edge.training.dataset import Example, encode

#: Text categories of the suite with all their tasks, in the order of MANIFEST.md.
TASKS = {
    "commonsense_reasoning": ("piqa", "arc", "hellaswag", "winogrande", "boolq", "csqa"),
    "glue": ("sst2", "mnli", "qnli", "qqp", "rte", "cola", "mrpc", "stsb"),
    "high_level_reasoning": ("gsm8k", "math_problems", "strategyqa", "aqua", "logiqa"),
    "vision_benchmark": ("scienceqa_text",),
    "object_motion_spatial": ("shuffled_objects",),
}
#: Metrics of the tasks that are not scored by accuracy over their choices.
METRICS = {
    "qqp": ("accuracy", "f1"),
    "mrpc": ("accuracy", "f1"),
    "cola": ("matthews",),
    "stsb": ("pearson", "spearman"),
    "gsm8k": ("number",),
    "math_problems": ("exact",),
}
_TOGETHER = 8  # number of batches whose rows are sorted by length together, to reduce padding


@dataclass(frozen=True)
class Budget:
    """The training budget, the same for every method."""

    steps: int = 150
    batch: int = 12  # rows per step
    max_length: int = 256  # tokens; longer training rows are left out
    test_rows: int = 64  # rows of each task, the same for every method and seed


@dataclass(frozen=True)
class Task:
    """One task: its rows and the names of its metrics."""

    name: str
    category: str
    metrics: tuple[str, ...]
    train: Sequence[Row]
    test: Sequence[Row]


@dataclass(frozen=True)
class Item:
    """A training row: its task's number and its tokens."""

    task: int
    example: Example


def read(data: Path, rows: int, split: str = "test") -> list[Task]:
    """Read all text tasks, with a fixed random sample of `rows` rows of `split` from each.

    Raises:
        DataError: Files are missing; the error names all of them.
    """
    names = [(category, task) for category, tasks in TASKS.items() for task in tasks]
    paths = [data / category / task / f"{part}.jsonl" for category, task in names for part in ("train", split)]
    if missing := [str(path) for path in paths if not path.is_file()]:
        raise DataError("missing files; expected the suite's folders CATEGORY/TASK", missing)
    found = []
    for category, task in names:
        whole = read_rows(data / category / task / f"{split}.jsonl")
        test = random.Random(0).sample(whole, min(rows, len(whole)))
        train = read_rows(data / category / task / "train.jsonl")
        found.append(Task(task, category, METRICS.get(task, ("accuracy",)), train, test))
    return found


def batches(tasks: Sequence[Task], tokenizer: Any, budget: Budget, seed: int) -> list[list[Item]]:
    """`steps` batches, determined by the seed: equally many rows of every task, rows of similar length together.

    Raises:
        DataError: All rows of a task are longer than the budget allows.
    """
    pick = random.Random(seed)
    wanted = budget.steps * budget.batch
    pool: list[Item] = []
    for number, task in enumerate(tasks):
        share = wanted * (number + 1) // len(tasks) - wanted * number // len(tasks)
        pool += list(_drawn(task, number, tokenizer, budget.max_length, share, pick))
    pick.shuffle(pool)
    made = []
    for start in range(0, wanted, budget.batch * _TOGETHER):
        some = sorted(pool[start : start + budget.batch * _TOGETHER], key=lambda item: len(item.example.input_ids))
        cut = [some[i : i + budget.batch] for i in range(0, len(some), budget.batch)]
        pick.shuffle(cut)
        made += cut
    return made


def _drawn(task: Task, number: int, tokenizer: Any, longest: int, count: int, pick: random.Random) -> Iterator[Item]:
    """`count` rows of a task; no row repeats before all have been used."""
    left: list[Row] = []
    found = dropped = 0
    while found < count:
        if not left:
            if dropped == len(task.train):
                raise DataError(f"all {dropped} rows of {task.name} are longer than {longest} tokens")
            left, dropped = pick.sample(task.train, len(task.train)), 0
        example = encode(tokenizer, left.pop())
        if len(example.input_ids) > longest:
            dropped += 1
            continue
        found += 1
        yield Item(number, example)
