"""`lime-edge eval`: how good base and skills are on examples, on the exported model. Knows nothing of torch."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .examples import Row, find_files, read_rows
from .metrics import Score, score

if TYPE_CHECKING:
    from lime_edge.runtime import Runtime

_TOGETHER = 32  # rows of one call; prompts of a call share the run of what they begin with


@dataclass(frozen=True)
class Result:
    """One skill (None: the base) on all rows."""

    skill: str | None
    digest: str | None
    score: Score
    seconds: float
    answers: list[str]


def examples(data: Path, count: int | None) -> list[Row]:
    """The rows to measure on: all, or `count` drawn evenly, the same ones every time (as `learn` draws them)."""
    rows = [row for path in find_files([data], "test") for row in read_rows(path)]
    return rows if count is None else random.Random(0).sample(rows, min(count, len(rows)))


def measure(runtime: Runtime, rows: Sequence[Row], skill: str | None, max_new_tokens: int) -> Result:
    """Answer every row with one skill and score the answers; shows its progress on standard error."""
    from rich.console import Console
    from rich.progress import Progress

    began = time.perf_counter()
    found: dict[int, str] = {}
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(skill or "base", total=len(rows))
        for job in _jobs(rows):
            answers = _answers(runtime, [rows[i] for i in job], skill, max_new_tokens)
            found |= dict(zip(job, answers, strict=True))
            progress.advance(task, len(job))
    said = [found[i] for i in range(len(rows))]
    digests = {info.name: info.digest for info in runtime.skills()}
    digest = None if skill is None else digests[skill]
    return Result(skill, digest, score(said, [row.answer for row in rows]), time.perf_counter() - began, said)


def _jobs(rows: Sequence[Row]) -> Iterator[list[int]]:
    """Indices of rows to run together: the same choices, and free answers by length of the prompt."""
    groups: dict[tuple[str, ...], list[int]] = {}
    for i, row in enumerate(rows):
        groups.setdefault(row.choices, []).append(i)
    for choices, group in groups.items():
        if not choices:
            group.sort(key=lambda i: sum(len(message["content"]) for message in rows[i].messages))
        yield from (group[i : i + _TOGETHER] for i in range(0, len(group), _TOGETHER))


def _answers(runtime: Runtime, rows: Sequence[Row], skill: str | None, max_new_tokens: int) -> list[str]:
    prompts = [list(row.messages) for row in rows]
    if choices := rows[0].choices:
        return [choice.label for choice in runtime.choose(prompts, choices, skill, best_only=True)]
    return [one.text for one in runtime.generate(prompts, skill, max_new_tokens=max_new_tokens, temperature=0.0)]
