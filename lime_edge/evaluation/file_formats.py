"""Reads records from data files: JSONL, JSON arrays, CSV, TSV and Parquet, each also compressed with gzip.

The format follows from the extension. What the keys of a record mean is decided elsewhere.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import json
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from lime_edge.common.extras import require_extra
from lime_edge.common.strict_json import load_json, show
from lime_edge.errors import DataError, MissingExtraError

GZIP = ".gz"
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_JSON_CELLS = ("messages", "conversations")  # columns of a table whose cells hold JSON


class Record(NamedTuple):
    """One record of a file."""

    number: int  # the line where it begins; in Parquet, the number of the row
    value: Any  # usually an object; None where there is a fault
    fault: str = ""  # why it cannot be read


@dataclass(frozen=True)
class DataFile:
    """An opened data file; `records` can be read once."""

    format: str  # for people, such as "CSV"
    unit: str  # what `Record.number` counts: "line" or "row"
    records: Iterator[Record]


def is_data_file(path: Path) -> bool:
    """Whether a path is a file with the extension of a known format."""
    return path.name.lower().removesuffix(GZIP).endswith(tuple(READERS)) and path.is_file()


def open_records(path: Path) -> DataFile:
    """Open a data file; files with an unknown extension may hold JSONL or a JSON array.

    Returns:
        The format and an iterator over the records. The iterator raises DataError where the rest of the file cannot be
        read, and MissingExtraError for Parquet without pyarrow.

    Raises:
        DataError: The file cannot be opened, or its format is unknown.
    """
    suffixes = [suffix.lower() for suffix in path.suffixes]
    packed = suffixes[-1:] == [GZIP]
    suffix = "".join(suffixes[:-1][-1:] if packed else suffixes[-1:])
    try:
        stream: Any = gzip.open(path) if packed else path.open("rb")  # noqa: SIM115  # `_guarded` closes it
        head = stream.peek(2)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    if suffix not in READERS:
        suffix = {b"{": ".jsonl", b"[": ".json"}.get(head.removeprefix(codecs.BOM_UTF8).lstrip()[:1], suffix)
    if suffix not in READERS:
        stream.close()
        raise DataError(f"{path} has an unknown format; expected {', '.join(READERS)}, or one of these with {GZIP}")
    if head.startswith(_UTF16):
        with stream:
            stream = io.BytesIO(stream.read().decode("utf-16", "replace").encode())
    name, unit, reader = READERS[suffix]
    return DataFile(name, unit, _guarded(path, stream, reader))


def _guarded(path: Path, stream: BinaryIO, reader: Callable[[BinaryIO], Iterator[Record]]) -> Iterator[Record]:
    """Turn whatever the libraries raise into a DataError."""
    with stream:
        try:
            yield from reader(stream)
        except (DataError, MissingExtraError):
            raise
        except UnicodeDecodeError as error:
            raise DataError(f"{path} cannot be read: it is not UTF-8 ({error.reason}); save it as UTF-8") from error
        except (OSError, EOFError, zlib.error, ValueError) as error:
            raise DataError(f"{path} cannot be read: {error}") from error


def _jsonl(stream: Iterable[bytes]) -> Iterator[Record]:
    for number, line in enumerate(stream, 1):  # not splitlines: a JSON string may contain U+2028
        if line.strip():
            yield _parsed(number, line.removeprefix(codecs.BOM_UTF8))


def _parsed(number: int, data: bytes | str) -> Record:
    try:
        return Record(number, load_json(data))
    except UnicodeDecodeError as error:
        return Record(number, None, f"is not UTF-8 at byte {error.start + 1} of the line; save the file as UTF-8")
    except json.JSONDecodeError as error:
        return Record(number, None, f"is not JSON: {error.msg} (character {error.pos + 1})")
    except ValueError as error:
        return Record(number, None, str(error))


def _json(stream: BinaryIO) -> Iterator[Record]:
    """The objects of a JSON array; a file of one object a line is read as JSONL, whatever it is called."""
    text = stream.read().decode("utf-8-sig")
    start = _skip_space(text, 0)
    if text.startswith("{", start):
        yield from _objects(text)
    elif text.startswith("[", start):
        yield from _array(text, start + 1)
    else:
        yield Record(1, None, "is not JSON: expected an array of objects")


def _objects(text: str) -> Iterator[Record]:
    lines = text.strip().encode().split(b"\n")
    if not _parsed(1, lines[0]).fault:
        yield from _jsonl(lines)
        return
    whole = _parsed(1, text)
    lists = [key for key, value in whole.value.items() if isinstance(value, list)] if whole.value else []
    inside = f"; its key {show(lists[0])} holds a list, which you could save alone" if lists else ""
    yield Record(1, None, whole.fault or f"is one object; expected an array of objects{inside}")


def _array(text: str, at: int) -> Iterator[Record]:
    decoder = json.JSONDecoder()
    line, seen = 1, 0
    while not text.startswith("]", at := _skip_space(text, at)):
        line, seen = line + text.count("\n", seen, at), at
        try:
            end = decoder.raw_decode(text, at)[1]
        except (ValueError, RecursionError) as error:
            yield Record(line, None, f"is not JSON: {getattr(error, 'msg', 'nested too deeply')}; reading stopped here")
            return
        yield _parsed(line, text[at:end])
        at = _skip_space(text, end)
        if text.startswith(",", at):
            at += 1
        elif not text.startswith("]", at):
            yield Record(line, None, "is followed by neither a comma nor the array's end; reading stopped here")
            return


def _skip_space(text: str, at: int) -> int:
    while text[at : at + 1] in (" ", "\t", "\r", "\n"):
        at += 1
    return at


def _csv(stream: BinaryIO) -> Iterator[Record]:
    return _table(stream, ",;\t")  # spreadsheets of some languages write semicolons


def _tsv(stream: BinaryIO) -> Iterator[Record]:
    return _table(stream, "\t")


def _table(stream: BinaryIO, delimiters: str) -> Iterator[Record]:
    text = io.TextIOWrapper(stream, "utf-8-sig", newline="")
    try:
        yield from _rows(text, delimiters)
    finally:
        text.detach()  # who opened the stream closes it


def _rows(text: io.TextIOWrapper, delimiters: str) -> Iterator[Record]:
    first = text.readline()
    reader = csv.reader(chain([first], text), delimiter=max(delimiters, key=first.count), strict=True)
    names = [name.strip().lower() for name in next(reader, [])]
    if len(set(names)) < len(names) or not all(names):
        yield Record(1, None, f"is the header {show(names)}; expected a different name for each column")
        return
    while True:
        number = reader.line_num + 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            yield Record(number, None, f"is not a row of a table: {error}; reading stopped here (check the quotes)")
            return
        if cells is None:
            return
        if cells:
            yield _cells(number, names, cells)


def _cells(number: int, names: list[str], cells: list[str]) -> Record:
    if len(cells) != len(names):
        return Record(number, None, f"has {len(cells)} cells; expected {len(names)}, as in the header")
    value: dict[str, Any] = {}
    for name, cell in zip(names, cells, strict=True):
        if not cell:
            continue  # an empty cell is a missing value
        if name in _JSON_CELLS or (name == "choices" and cell.lstrip().startswith("[")):
            inner = _parsed(number, cell)
            if inner.fault:
                return Record(number, None, f"has JSON in the column {name!r} that {inner.fault}")
            value[name] = inner.value
        else:
            value[name] = [part.strip() for part in cell.split("|")] if name == "choices" else cell
    return Record(number, value)


def _parquet(stream: BinaryIO) -> Iterator[Record]:
    with require_extra("data"):
        import pyarrow
        import pyarrow.parquet
    try:
        file = pyarrow.parquet.ParquetFile(pyarrow.BufferReader(stream.read()))
        batches: Iterator[Any] = file.iter_batches()
        rows = chain.from_iterable(batch.to_pylist() for batch in batches)
        for number, value in enumerate(rows, 1):
            yield Record(number, value)
    except pyarrow.ArrowException as error:
        raise ValueError(f"it is not Parquet, or damaged: {error!s:.200}") from error


#: Extension -> name of the format, what is counted, and the reader.
READERS: dict[str, tuple[str, str, Callable[[BinaryIO], Iterator[Record]]]] = {
    ".jsonl": ("JSONL", "line", _jsonl),
    ".ndjson": ("JSONL", "line", _jsonl),
    ".json": ("JSON", "line", _json),
    ".csv": ("CSV", "line", _csv),
    ".tsv": ("TSV", "line", _tsv),
    ".parquet": ("Parquet", "row", _parquet),
}
