"""Prepares the rows of a training run: which to train on, which to measure on, and what became of the others.

No prompt is on both sides. What is left out is counted and reported on standard error before the training starts.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from lime_edge.errors import DataError
from lime_edge.evaluation.examples import Row, at_most, read_rows, split_file
from lime_edge.evaluation.instruction import Instruction
from lime_edge.evaluation.splits import DataFacts, by_prompt, duplicates, hold_back, overlap

from .dataset import Examples, chat_of, encoded_prompt

_MUCH = 0.05  # share of dropped rows from which a report becomes a warning
_SHOWN = 3  # overlapping rows that are named
_NEW_TOKENS = 96  # the longest answer when a skill is measured


@dataclass(frozen=True)
class TrainingRows:
    """Rows on both sides.

    Attributes:
        train: Rows to train on.
        valid: Rows to measure on.
        overlap: Rows that are in neither because their prompt is in `valid`, each with the row there.
        duplicates: Rows that repeat an earlier one, of those that were given for training.
    """

    train: list[Row]
    valid: list[Row]
    overlap: list[tuple[Row, Row]]
    duplicates: int

    def facts(self, examples: Examples) -> DataFacts:
        """The counts that a package reports."""
        given = len(self.train) + len(self.overlap)
        return DataFacts(given, examples.dropped, self.duplicates, len(self.overlap))

    def report(self, examples: Examples) -> None:
        """Print what was left out, and why, to standard error."""
        for line in self._lines(examples):
            note(line)

    def without(self, instruction: Instruction) -> TrainingRows:
        """The same rows with bare requests as prompts."""
        train, valid = ([instruction.cut(row) for row in rows] for rows in (self.train, self.valid))
        return replace(self, train=train, valid=valid)

    def _lines(self, examples: Examples) -> list[str]:
        lines = []
        if examples.dropped:
            much = examples.dropped > _MUCH * len(examples.lengths)
            said = f"{examples.dropped} of {len(examples.lengths)} rows are left out: too many tokens"
            lines.append(f"warning: {said}; {examples.advice()}" if much else said)
        if self.duplicates:
            lines.append(f"{self.duplicates} rows repeat the prompt and the answer of another row")
        if self.overlap:
            pairs = at_most([f"{row.place} = {other.place}" for row, other in self.overlap], _SHOWN)
            said = f"warning: {len(self.overlap)} rows are left out: their prompts are also in the validation data"
            lines.append(f"{said} ({', '.join(pairs)})")
        return lines


def note(line: str) -> None:
    """Print a line to standard error."""
    Console(stderr=True).print(line, soft_wrap=True, markup=False, highlight=False)


def keep_apart(train: Sequence[Row], valid: Sequence[Row]) -> TrainingRows:
    """Leave the rows out of the training whose prompt is also among the validation rows.

    Raises:
        DataError: No row is left to train on.
    """
    pairs = overlap(train, valid)
    out = {id(row) for row, _ in pairs}
    kept = [row for row in train if id(row) not in out]
    if not kept:
        raise DataError(
            f"no row is left to train on: the prompts of all {len(train)} rows are also in the validation data",
            at_most([f"{row.place} = {other.place}" for row, other in pairs], _SHOWN),
        )
    return TrainingRows(kept, list(valid), pairs, duplicates(by_prompt(train)))


def pick(rows: Sequence[Row], count: int, seed: int) -> list[Row]:
    """At most `count` rows, drawn at random."""
    return random.Random(seed).sample(list(rows), min(count, len(rows)))


def rows_of_skill(data: Path, valid: Path | None, seed: int, measured: bool = True) -> TrainingRows:
    """Read the rows of a skill.

    Args:
        data: A data file, or a folder with train.jsonl (or another format) and, optionally, valid.jsonl.
        valid: The rows to measure on; None: those of the folder, or else a tenth of the rows.
        seed: Which tenth.
        measured: Whether a tenth is held back; if not, the rows to train on are returned as `valid`, too.

    Raises:
        DataError: Files cannot be used, or no row is left on one side.
    """
    source = split_file(data, "train") if data.is_dir() else data
    if source is None:
        raise DataError(f"{data} cannot be read: expected a data file, or a folder with a train.jsonl")
    rows = read_rows(source)
    beside = split_file(data, "valid") if data.is_dir() else None
    if valid is not None or beside is not None:
        return keep_apart(rows, read_rows(valid or beside or source))
    if not measured:
        return TrainingRows(rows, rows, [], duplicates(by_prompt(rows)))
    train, held = hold_back(rows, seed)
    if not held:
        what = "one row" if len(rows) == 1 else f"{len(rows)} rows with the same prompt"
        raise DataError(
            f"{source} holds {what}, which leaves none to measure on: add rows, give a validation file (--valid), or "
            "measure nothing (--metric-rows 0)"
        )
    return TrainingRows(train, held, [], duplicates(by_prompt(train)))


def check_prompts(tokenizer: Any, rows: Sequence[Row], system: str | None, room: int | None = None) -> None:
    """Reject before the training what could not be measured after it.

    Args:
        tokenizer: The model's.
        rows: The rows to measure on.
        system: System text of the skill.
        room: Tokens that the model has room for; None: not checked.

    Raises:
        DataError: Names the rows that the chat template rejects or that are too long.
    """
    faults = []
    for row in rows:
        size = len(encoded_prompt(tokenizer, row, system))
        new = max((len(chat_of(tokenizer).text(choice)) + 1 for choice in row.choices), default=_NEW_TOKENS)
        if room is not None and size + new > room:
            faults.append(f"{row.place}: {size} tokens and {new} for the answer; the model has room for {room}")
    if faults:
        raise DataError("rows to measure on are too long", at_most(faults, 3 * _SHOWN))
