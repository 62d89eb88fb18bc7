"""Rows of JSONL files: find, read, check. Needs no torch; knows nothing of tokens or models.

A row is ``{"prompt", "answer", "choices"?}`` or ``{"messages": [...]}`` whose last message is the
assistant's answer.
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
    """One example: the conversation so far, the answer, and the answers to choose from, if any."""

    messages: tuple[dict[str, str], ...]
    answer: str
    choices: tuple[str, ...] = ()


def find_files(paths: Iterable[str | Path], split: str) -> list[Path]:
    """Files stay as they are; a folder stands for every ``<split>.jsonl`` in it, at any depth.

    Raises:
        DataError: naming every path that does not exist or holds no such file.
    """
    found: list[Path] = []
    faults = []
    for path in map(Path, paths):
        inside = sorted(path.rglob(f"{split}.jsonl")) if path.is_dir() else [path] if path.is_file() else []
        found += inside
        if not inside:
            faults.append(f"{path}: expected a .jsonl file, or a folder with a {split}.jsonl")
    if faults:
        raise DataError(f"no {split} data there", faults)
    return found


def read_rows(path: Path) -> list[Row]:
    """Read one file.

    Raises:
        DataError: naming every row that cannot be used, by line number.
    """
    rows, faults = [], []
    try:
        lines = path.read_text("utf-8").split("\n")  # not splitlines: U+2028 may stand in a string
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
            raise ValueError("messages must end with the assistant's answer to something")
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
    """SHA-256 of the rows in order: which data a metric was measured on."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps([row.messages, row.answer, row.choices], ensure_ascii=False).encode() + b"\n")
    return digest.hexdigest()
