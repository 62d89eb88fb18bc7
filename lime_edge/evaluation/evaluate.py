"""Runs an exported model, with and without skills, on examples and scores the answers (`lime-edge eval`)."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lime_edge.errors import DataError

from .content import length_of
from .examples import Row, at_most, find_files, read_rows
from .instruction import Instruction, is_request
from .metrics import Score, score

if TYPE_CHECKING:
    from lime_edge.runtime import Runtime

_SHOWN = 10  # rows that are named when they cannot be answered
_Prompt = str | list[dict[str, Any]]  # a plain request (text, or a list of parts), or messages
_BATCH = 32  # rows in one call; the prompts of one call share the computation of their common prefix


@dataclass(frozen=True)
class Result:
    """The score of one skill on all rows; `skill` is None for the base model."""

    skill: str | None
    digest: str | None
    score: Score
    seconds: float
    answers: list[str]
    cut: bool = False  # whether the rows had an instruction that was not given to the skill


def examples(data: Path) -> list[Row]:
    """All test rows."""
    return [row for path in find_files([data], "test") for row in read_rows(path)]


def sample(rows: list[Row], count: int | None) -> list[Row]:
    """All rows, or a uniform sample of `count` rows; the seed is fixed and the same as in `learn`."""
    return rows if count is None else random.Random(0).sample(rows, min(count, len(rows)))


def answerable(rows: Sequence[Row], faults: Mapping[int, str], leave_out: bool) -> list[Row]:
    """The rows that the model can answer.

    Args:
        rows: All rows.
        faults: From `too_long`: index of a row -> why it cannot be answered.
        leave_out: Leave such rows out; otherwise refuse.

    Raises:
        DataError: Rows cannot be answered, and are not to be left out, or nothing else is left; names them by line.
    """
    kept = [row for number, row in enumerate(rows) if number not in faults]
    if faults and not (leave_out and kept):
        other = "" if leave_out else ", or leave them out (--skip-long)"
        said = f"{len(faults)} of {len(rows)} rows cannot be answered: shorten them, or ask for fewer tokens{other}"
        raise DataError(said, at_most(list(faults.values()), _SHOWN))
    return kept


def measure(
    runtime: Runtime,
    rows: Sequence[Row],
    skill: str | None,
    max_new_tokens: int,
    keep: Callable[[Result], None] = lambda _: None,
    cut: Instruction | None = None,
) -> Result:
    """Answer every row with one skill and score the answers; shows a progress bar on standard error.

    Args:
        runtime: The opened model; `skill` must be loaded.
        rows: At least one row.
        skill: The name of a loaded skill; None measures the base model.
        max_new_tokens: The longest free answer, in tokens.
        keep: Called after every batch with the result on the rows answered so far, in their order.
        cut: What the skill is not given: prompts of one message are asked as plain requests, without it. None: all
            prompts are given as messages.
    """
    from rich.console import Console
    from rich.progress import Progress

    began = time.perf_counter()
    answers: dict[int, str] = {}
    prompts = [_prompt(row, cut) for row in rows]
    shortened = any(map(_is_shortened, prompts, rows))
    digests = {info.name: info.digest for info in runtime.skills()}

    def result() -> Result:
        there = sorted(answers)
        texts = [answers[i] for i in there]
        scored = score(texts, [rows[i].answer for i in there])
        return Result(skill, skill and digests.get(skill), scored, time.perf_counter() - began, texts, shortened)

    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(skill or "base", total=len(rows))
        for batch in _batches(rows):
            choices = rows[batch[0]].choices
            texts = _answers(runtime, [prompts[i] for i in batch], choices, skill, max_new_tokens)
            answers |= dict(zip(batch, texts, strict=True))
            progress.advance(task, len(batch))
            keep(result())
    return result()


def _batches(rows: Sequence[Row]) -> Iterator[list[int]]:
    """Indices of rows to run in one call: rows with equal choices, or free answers with prompts of similar length."""
    groups: dict[tuple[str, ...], list[int]] = {}
    for i, row in enumerate(rows):
        groups.setdefault(row.choices, []).append(i)
    for choices, group in groups.items():
        if not choices:
            group.sort(key=lambda i: length_of(rows[i].messages))
        yield from (group[i : i + _BATCH] for i in range(0, len(group), _BATCH))


def _prompt(row: Row, cut: Instruction | None) -> _Prompt:
    if cut is None or not is_request(row):
        return list(row.messages)
    bare: _Prompt = cut.bare(row.messages[0]["content"])
    return bare


def _is_shortened(prompt: _Prompt, row: Row) -> bool:
    return prompt != row.messages[0]["content"] and prompt != list(row.messages)


def _answers(
    runtime: Runtime, prompts: list[_Prompt], choices: Sequence[str], skill: str | None, max_new_tokens: int
) -> list[str]:
    if choices:
        return [choice.label for choice in runtime.choose(prompts, choices, skill, best_only=True)]
    return [answer.text for answer in runtime.generate(prompts, skill, max_new_tokens=max_new_tokens, temperature=0.0)]
