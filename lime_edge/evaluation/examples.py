"""Finds, reads and validates the rows of JSONL files.

A row is ``{"prompt", "answer", "choices"?}``, or ``{"messages": [...]}`` that ends with the assistant's answer.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lime_edge.errors import DataError

_SHOWN = 10  # faults listed before "and N more"


@dataclass(frozen=True)
class Row:
    """One example: the messages before the answer, the answer, and the allowed answers if the row has choices."""

    messages: tuple[dict[str, str], ...]
    answer: str
    choices: tuple[str, ...] = ()


def find_files(paths: Iterable[str | Path], split: str) -> list[Path]:
    """Expand folders to every ``<split>.jsonl`` in them, at any depth; files are returned unchanged.

    Raises:
        DataError: A path does not exist or contains no such file; names every such path.
    """
    found: list[Path] = []
    faults = []
    for path in map(Path, paths):
        inside = sorted(path.rglob(f"{split}.jsonl")) if path.is_dir() else [path] if path.is_file() else []
        found += inside
        if not inside:
            faults.append(f"{path}: expected a .jsonl file, or a folder with a {split}.jsonl")
    if faults:
        raise DataError(f"no {split} data found", faults)
    return found


def read_rows(path: Path) -> list[Row]:
    """Read one file.

    Raises:
        DataError: The file is unreadable or empty, or rows are invalid; names the first ten by line number.
    """
    rows, faults = [], []
    try:
        lines = path.read_text("utf-8").split("\n")  # not splitlines: a JSON string may contain U+2028
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            rows.append(_row(json.loads(line)))
        except (ValueError, RecursionError) as error:
            faults.append(f"line {number}: {error}")
    if faults:
        more = [f"and {len(faults) - _SHOWN} more"] if len(faults) > _SHOWN else []
        raise DataError(f"{path}: {len(faults)} rows cannot be used", faults[:_SHOWN] + more)
    if not rows:
        raise DataError(f"{path} holds no rows")
    return rows


def _row(value: Any) -> Row:
    if not isinstance(value, dict):
        raise ValueError(f"expected an object, found {type(value).__name__}")
    choices = value.get("choices") or ()
    if "messages" in value:
        messages = tuple(_message(m) for m in _list(value["messages"], "messages"))
        if len(messages) < 2 or messages[-1]["role"] != "assistant":
            raise ValueError("messages must end with the assistant's answer and have at least one message before it")
        messages, answer = messages[:-1], messages[-1]["content"]
    else:
        messages, answer = ({"role": "user", "content": _text(value, "prompt")},), _text(value, "answer")
    if not all(isinstance(choice, str) and choice for choice in _list(choices, "choices")):
        raise ValueError("choices must be non-empty strings")
    if choices and answer not in choices:
        raise ValueError(f"the answer {answer!r} is not among the choices")
    return Row(messages, answer, tuple(choices))


def _message(value: Any) -> dict[str, str]:
    if not isinstance(value, dict):
        raise ValueError("a message must be an object with role and content")
    return {"role": _text(value, "role"), "content": _text(value, "content")}


def _list(value: Any, name: str) -> Sequence[Any]:
    if not isinstance(value, (list, tuple)):
        raise ValueError(f"{name} must be a list, found {type(value).__name__}")
    return value


def _text(value: dict[str, Any], key: str) -> str:
    text = value.get(key)
    if not isinstance(text, str) or not text:
        raise ValueError(f"{key!r} must be a non-empty string, found {text!r}")
    return text


def data_digest(rows: Sequence[Row]) -> str:
    """SHA-256 of the rows in order; identifies the data that a metric was measured on."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps([row.messages, row.answer, row.choices], ensure_ascii=False).encode() + b"\n")
    return digest.hexdigest()
