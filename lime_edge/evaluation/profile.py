"""Describes the rows of a data file before anything is trained on them: lengths, repetition, balance, wording."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from itertools import combinations
from typing import Any

from lime_edge.errors import LimeError

from .content import length_of, text_of
from .examples import Row, Scan
from .picture_profile import PictureProfile
from .shared_ends import shared_ends
from .splits import by_prompt, conflicts, duplicates, overlap
from .token_lengths import TokenCounter, one_line

_LABELS = 20  # most different answers that count as labels where the rows do not all have the same choices
_NEARLY_ALL = 0.95
_EXAMPLES = 5  # of conflicts and overlaps that are listed


def profile(found: Scan, counter: TokenCounter | None = None, max_length: int = 512) -> dict[str, Any]:
    """Describe one file.

    Args:
        found: What the file holds.
        counter: Counts tokens; None counts characters, and then nothing is known about `max_length`.
        max_length: The longest row that training would keep, in tokens.

    Returns:
        Plain JSON values; the keys are those of the report of `lime-edge data --json`. A row that the model's chat
        template rejects, or whose picture is damaged, counts as one that cannot be used.

    Raises:
        MissingExtraError: There are pictures, and Pillow is not installed.
    """
    pictures = PictureProfile.of(found.rows)
    usable = [row for index, row in enumerate(found.rows) if index not in pictures.damaged]
    rows, sizes, rejected = _measured(usable, counter)
    rejected = [*pictures.faults, *rejected]
    facts: dict[str, Any] = {
        "file": str(found.path),
        "format": found.format,
        "forms": dict(found.forms),
        "rows": len(rows),
        "bad": found.bad + len(rejected),
        "faults": [*found.faults, *rejected],
        "unread": dict(found.unread),
        "pictures": pictures.facts(),
    }
    if not rows:
        return facts
    groups = by_prompt(rows)
    differing = conflicts(groups)
    prompts = [text_of(row.messages[-1]["content"]) for row in rows]
    beginning, ending = shared_ends(prompts)
    return {
        **facts,
        **_lengths(sizes, counter, max_length),
        "prompts": len(groups),
        "duplicates": duplicates(groups),
        "conflicts": len(differing),
        "conflict_examples": [_conflict(some) for some in differing[:_EXAMPLES]],
        "labels": _labels(rows),
        "with_choices": sum(bool(row.choices) for row in rows),
        "systems": len({text_of(row.messages[0]["content"]) for row in rows if row.messages[0]["role"] == "system"}),
        "several_answers": sum(any(one["role"] == "assistant" for one in row.messages) for row in rows),
        "beginning": beginning,
        "ending": ending,
    }


def overlaps(files: Sequence[Scan]) -> list[dict[str, Any]]:
    """For each two files, the prompts that stand in both."""
    found = []
    for one, other in combinations(files, 2):
        if pairs := overlap(one.rows, other.rows):
            examples = [f"{a.place} = {b.place}" for a, b in pairs[:_EXAMPLES]]
            found.append({"files": [str(one.path), str(other.path)], "rows": len(pairs), "examples": examples})
    return found


def _lengths(sizes: list[int], counter: TokenCounter | None, max_length: int) -> dict[str, Any]:
    sizes, last = sorted(sizes), len(sizes) - 1
    names = {"shortest": 0, "median": last // 2, "p95": math.ceil(_NEARLY_ALL * len(sizes)) - 1, "longest": last}
    spread = {name: sizes[at] for name, at in names.items()}
    facts: dict[str, Any] = {"lengths": {"unit": "characters" if counter is None else "tokens", **spread}}
    if counter is not None:
        facts |= {"max_length": max_length, "dropped": sum(size > max_length for size in sizes)}
    return facts


def _measured(rows: Sequence[Row], counter: TokenCounter | None) -> tuple[list[Row], list[int], list[str]]:
    """The rows that the chat template takes, their lengths, and one line for each other row."""
    if counter is None:
        return list(rows), [length_of(row.messages) + len(row.answer) for row in rows], []
    kept, sizes, faults = [], [], []
    for row in rows:
        try:
            sizes.append(counter.row(row))
            kept.append(row)
        except LimeError as error:
            faults.append(f"{_at(row)}: {one_line(error)}")
    return kept, sizes, faults


def _labels(rows: Sequence[Row]) -> dict[str, int]:
    """How many rows have each answer, if the answers are labels, commonest first; an unused choice has 0."""
    counts = Counter(row.answer for row in rows)
    fixed = bool(rows[0].choices) and len({frozenset(row.choices) for row in rows}) == 1
    if not fixed and (len(counts) > _LABELS or 2 * len(counts) > len(rows)):
        return {}
    for row in rows:
        counts.update(dict.fromkeys(row.choices, 0))
    return dict(counts.most_common())


def _conflict(rows: Sequence[Row]) -> str:
    return ", ".join(map(_at, rows))


def _at(row: Row) -> str:
    return f"{row.place.unit} {row.place.number}" if row.place else "a row"
