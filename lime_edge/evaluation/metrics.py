"""Scores answers against references: exact match and F1."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Score:
    """Means over rows, each from 0 to 1.

    Attributes:
        rows: The number of rows.
        exact: Share of answers equal to the reference, ignoring surrounding white space. For rows with
            choices, this is the accuracy.
        f1: Overlap of the parts of the answer and of the reference. The parts are key-value pairs if the
            reference is a JSON object (slot F1), otherwise words (token F1).
    """

    rows: int
    exact: float
    f1: float


def score(answers: Sequence[str], references: Sequence[str]) -> Score:
    """Compare each answer with its reference; at least one pair.

    Raises:
        ValueError: The two sequences differ in length.
    """
    pairs = [(answer.strip(), reference.strip()) for answer, reference in zip(answers, references, strict=True)]
    exact = sum(answer == reference for answer, reference in pairs) / len(pairs)
    return Score(len(pairs), exact, sum(f1(answer, reference) for answer, reference in pairs) / len(pairs))


def f1(answer: str, reference: str) -> float:
    """Harmonic mean of precision and recall over the parts of both texts, from 0 to 1 (see `Score.f1`)."""
    slots = _slots(reference)
    wanted = Counter(reference.split() if slots is None else slots)
    found = Counter(answer.split() if slots is None else _slots(answer) or [])
    shared = sum((wanted & found).values())
    return 2 * shared / (sum(wanted.values()) + sum(found.values())) if shared else float(wanted == found)


def _slots(text: str) -> list[str] | None:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict):
        return None
    return [json.dumps([key, item], sort_keys=True) for key, item in value.items()]
