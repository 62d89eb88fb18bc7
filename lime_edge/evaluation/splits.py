"""Keeps training and measuring apart: equal prompts, duplicates, conflicting answers, and the rows held back.

Prompts are equal if they differ only in case and white space.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .content import identity
from .examples import Row


@dataclass(frozen=True)
class DataFacts:
    """What became of the rows that were given for training; the manifest of a skill has the same counts.

    Attributes:
        rows: Rows that were given for training. A tenth that was held back to measure on is not among them.
        dropped: Of these, rows that were left out because they have too many tokens.
        duplicates: Of these, rows that repeat the prompt and the answer of another row; they are trained on.
        overlap: Of these, rows that were left out because their prompt is also in the validation data.
    """

    rows: int
    dropped: int = 0
    duplicates: int = 0
    overlap: int = 0


def prompt_key(row: Row) -> str:
    """A text that is the same for all rows with an equal prompt."""
    return "\x1f".join(f"{message['role']}\x1e{_folded(identity(message['content']))}" for message in row.messages)


def _folded(content: Any) -> str:
    if isinstance(content, str):
        return " ".join(content.split()).casefold()
    return "\x1d".join(_folded(part) if isinstance(part, str) else json.dumps(part) for part in content)


def by_prompt(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """The rows of each prompt, in their order."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(prompt_key(row), []).append(row)
    return groups


def duplicates(groups: Mapping[str, Sequence[Row]]) -> int:
    """Number of rows that repeat the prompt and the answer of an earlier row."""
    return sum(len(rows) - len({row.answer.strip() for row in rows}) for rows in groups.values())


def conflicts(groups: Mapping[str, Sequence[Row]]) -> list[list[Row]]:
    """For each prompt with different answers, one row for each answer."""
    found = []
    for rows in groups.values():
        firsts: dict[str, Row] = {}
        for row in rows:
            firsts.setdefault(row.answer.strip(), row)
        if len(firsts) > 1:
            found.append(list(firsts.values()))
    return found


def hold_back(rows: Sequence[Row], seed: int) -> tuple[list[Row], list[Row]]:
    """Split rows at random into nine tenths to train on and one to measure on; equal prompts stay together.

    Returns:
        Both parts; the second is empty if all rows have the same prompt.
    """
    groups = list(by_prompt(rows).values())
    if len(groups) == 1:
        return list(rows), []
    random.Random(seed).shuffle(groups)
    room = max(1, len(rows) // 10)
    held: list[list[Row]] = []
    for group in groups:
        if len(group) <= room:
            held.append(group)
            room -= len(group)
    if not held:
        held.append(min(groups, key=len))
    taken = {id(group) for group in held}
    return [row for group in groups if id(group) not in taken for row in group], [row for one in held for row in one]


def overlap(rows: Iterable[Row], others: Iterable[Row]) -> list[tuple[Row, Row]]:
    """The rows whose prompt is also among `others`, each with the first of those."""
    groups = by_prompt(others)
    return [(row, groups[key][0]) for row in rows if (key := prompt_key(row)) in groups]
