"""Requests of the benchmarks: test rows with and without what the prompts of their data set share."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lime_edge.evaluation.examples import Row, read_rows
from lime_edge.evaluation.instruction import Instruction


@dataclass(frozen=True)
class Request:
    """One row of one task: the full prompt, the bare request, and the answer that the data set has."""

    task: str
    full: str
    bare: str
    answer: str


def requests_of(task: str, data: Path, count: int | None) -> list[Request]:
    """The rows of a data set, as the base gets them and as a skill gets them."""
    rows = read_rows(data)
    instruction = Instruction.of(rows)
    picked = rows if count is None else random.Random(0).sample(rows, min(count, len(rows)))
    return [_request(task, row, instruction) for row in picked]


def _request(task: str, row: Row, instruction: Instruction) -> Request:
    full = row.messages[0]["content"]
    return Request(task, full, instruction.bare(full), row.answer)


def parses(text: str, request: Request, choices: Sequence[str] | None) -> bool | None:
    """Whether an answer has the form that its task asks for; None if any text is an answer.

    Args:
        text: The answer.
        request: Its row.
        choices: The texts that can be answers; None: no fixed ones.
    """
    if choices is not None:
        return text in choices
    if not request.answer.startswith("{"):
        return None
    try:
        return isinstance(json.loads(text), dict)
    except ValueError:
        return False
