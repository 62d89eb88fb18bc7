"""Finds data files and reads the examples in them, in any of the formats and forms that docs/data.md describes."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lime_edge.errors import DataError

from .content import plain
from .file_formats import GZIP, READERS, open_records
from .picture_files import PictureFiles
from .row_forms import example_of

_SHOWN = 10  # different faults listed before "and N more"
_PLACES = 5  # places named for one fault before "and N more"


@dataclass(frozen=True)
class Place:
    """Where a row stands, so that faults can name it."""

    file: Path
    number: int
    unit: str = "line"

    def __str__(self) -> str:
        return f"{self.file} {self.unit} {self.number}"


@dataclass(frozen=True)
class Row:
    """One example: the messages before the answer, the answer, and the allowed answers if the row has choices."""

    messages: tuple[dict[str, Any], ...]
    answer: str
    choices: tuple[str, ...] = ()
    place: Place | None = field(default=None, compare=False, repr=False)  # where it was read


@dataclass(frozen=True)
class Scan:
    """What one file holds.

    Attributes:
        path, format: The file, and its format for people.
        rows: The usable rows.
        forms: Number of usable rows of each form.
        unread: Number of usable rows with each key that is not read.
        faults: One line for each different fault, with its places.
        bad: Number of records that cannot be used.
    """

    path: Path
    format: str
    rows: list[Row]
    forms: Counter[str]
    unread: Counter[str]
    faults: list[str]
    bad: int


def find_files(paths: Iterable[str | Path], split: str, optional: bool = False) -> list[Path]:
    """Expand folders to every file named `split` in them, with the extension of a known format, at any depth.

    Files are returned unchanged. With `optional`, a folder may hold no such file.

    Raises:
        DataError: A path does not exist, or holds no such file or several in one folder; names every such path.
    """
    found: list[Path] = []
    faults = []
    for path in map(Path, paths):
        inside = (
            _named(path.rglob(f"{split}.*"), split) if os.path.isdir(path) else [path] if os.path.isfile(path) else []
        )
        found += inside
        if not inside and not (optional and os.path.isdir(path)):
            faults.append(f"{path}: expected a data file, or a folder with a {split}.jsonl (or {_others()})")
        faults += [
            f"{folder}: has {count} files named {split}; expected one"
            for folder, count in Counter(file.parent for file in inside).items()
            if count > 1
        ]
    if faults:
        raise DataError(f"no {split} data found", faults)
    return found


def split_file(folder: Path, split: str) -> Path | None:
    """The file of a split directly in a folder, such as valid.jsonl; None if there is none.

    Raises:
        DataError: There are several.
    """
    there = _named(folder.glob(f"{split}.*"), split)
    if len(there) > 1:
        raise DataError(f"{folder} has {len(there)} files named {split}; expected one", [file.name for file in there])
    return there[0] if there else None


def _named(paths: Iterable[Path], split: str) -> list[Path]:
    names = {f"{split}{suffix}{packed}" for suffix in READERS for packed in ("", GZIP)}
    return sorted(path for path in paths if path.name.lower() in names and os.path.isfile(path))


def _others() -> str:
    return ", ".join(suffix for suffix in READERS if suffix != ".jsonl")


def scan(path: Path) -> Scan:
    """Read one file and keep both its rows and its faults.

    Raises:
        DataError: The file cannot be read at all, or not to its end.
        MissingExtraError: It is Parquet, and pyarrow is not installed.
    """
    file, pictures = open_records(path), PictureFiles(path)
    rows: list[Row] = []
    forms: Counter[str] = Counter()
    unread: Counter[str] = Counter()
    faults: dict[str, list[int]] = {}
    for record in file.records:
        try:
            if record.fault:
                raise ValueError(record.fault)
            example = example_of(record.value)
            messages = pictures.located(example.messages)
        except ValueError as error:
            faults.setdefault(str(error), []).append(record.number)
            continue
        place = Place(path, record.number, file.unit)
        rows.append(Row(messages, example.answer, example.choices, place))
        forms[example.form] += 1
        unread.update(example.unread)
    pictures.close()
    lines = [f"{_places(numbers, file.unit)}: {fault}" for fault, numbers in faults.items()]
    return Scan(path, file.format, rows, forms, unread, lines, sum(map(len, faults.values())))


def _places(numbers: Sequence[int], unit: str) -> str:
    if len(numbers) == 1:
        return f"{unit} {numbers[0]}"
    more = f" and {len(numbers) - _PLACES} more" if len(numbers) > _PLACES else ""
    return f"{unit}s {', '.join(map(str, numbers[:_PLACES]))}{more}"


def read_rows(path: Path) -> list[Row]:
    """Read one file, of which every row has to be usable.

    Raises:
        DataError: The file is unreadable or empty, or rows are invalid; names them by line.
        MissingExtraError: It is Parquet, and pyarrow is not installed.
    """
    found = scan(path)
    if found.faults:
        count = f"{found.bad} of {found.bad + len(found.rows)} rows cannot be used"
        raise DataError(f"{path}: {count}", at_most(found.faults, _SHOWN))
    if not found.rows:
        raise DataError(f"{path} holds no rows")
    return found.rows


def at_most(lines: Sequence[str], count: int) -> list[str]:
    """The first `count` lines and, if there are more, how many."""
    return [*lines[:count], *([f"and {len(lines) - count} more"] if len(lines) > count else [])]


def data_digest(rows: Sequence[Row]) -> str:
    """SHA-256 of the rows in order; identifies the data that a metric was measured on."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps([plain(row.messages), row.answer, row.choices], ensure_ascii=False).encode() + b"\n")
    return digest.hexdigest()
