"""The container of a skill package: a safetensors reader and writer for untrusted files.

The reader is our own, because it validates sizes, offsets and types against the length of the file before it uses the
header or allocates anything. Format: docs/skill-format.md.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from lime_edge.common.digests import canonical_json
from lime_edge.common.strict_json import load_json, load_json_at, show

Array = npt.NDArray[Any]

HEADER_LIMIT = 8 * 2**20  # bytes
TENSOR_LIMIT = 2**14  # tensors in a package
SIDE_LIMIT = 2**24  # elements along one side of a tensor

_VECTOR_DTYPES: dict[str, np.dtype[Any]] = {"F16": np.dtype("<f2"), "I8": np.dtype("i1")}
_DRAFT = "draft."  # the beginning of the names of the tensors that have the other types
_DRAFT_DTYPES: dict[str, np.dtype[Any]] = {"I32": np.dtype("<i4"), "U16": np.dtype("<u2"), "U8": np.dtype("u1")}
_DTYPES = _VECTOR_DTYPES | _DRAFT_DTYPES
_OPENING = '{"__metadata__":'  # of every header written by `pack`: canonical JSON sorts this key first
_CACHED_TABLE_LIMIT = 2**20  # characters; longer tensor tables are not cached
_ENTRY_KEYS = {"dtype", "shape", "data_offsets"}


class Entry(NamedTuple):
    """Type, shape and position of one tensor."""

    dtype: np.dtype[Any]
    shape: tuple[int, int]  # [rows, columns]
    begin: int  # offset in bytes from the end of the header


@dataclass(frozen=True, eq=False)
class Layout:
    """A valid tensor table: the tensors are contiguous. All skills of one model have equal tables."""

    entries: Mapping[str, Entry]
    size: int  # bytes of all tensors


@dataclass
class Container:
    """The parsed parts of a package file.

    Attributes:
        metadata: Metadata key -> text.
        layout: The tensor table; packages with equal tables share one object. None if it has faults.
        body: The bytes of all tensors; empty if there are faults.
        faults: One line for each fault.
    """

    metadata: dict[str, str] = field(default_factory=dict)
    layout: Layout | None = None
    body: memoryview = field(default_factory=lambda: memoryview(b""))
    faults: list[str] = field(default_factory=list)

    @cached_property
    def tensors(self) -> dict[str, Array]:
        """Read-only views [rows, columns] into the bytes of the file; empty if there are faults."""
        entries = {} if self.layout is None or self.faults else self.layout.entries
        return {name: np.ndarray(shape, dtype, self.body, begin) for name, (dtype, shape, begin) in entries.items()}

    def gather(self, names: Sequence[str]) -> Array:
        """Copy tensors of one type and shape into one array, stacked by rows: [n * rows, columns]."""
        assert self.layout is not None  # callers take the names from it
        entries = self.layout.entries
        dtype, shape, _ = entries[names[0]]
        begins, size = np.array([entries[name].begin for name in names]), math.prod(shape) * dtype.itemsize
        anywhere: Array = np.ndarray((len(self.body) - size + 1, size), np.uint8, self.body, strides=(1, 1))
        found: Array = anywhere[begins].view(dtype).reshape(-1, shape[1])
        return found


def pack(metadata: Mapping[str, str], tensors: Mapping[str, Array]) -> bytes:
    """The only byte form of a package: tensors by name, those of the widest type first so that all are aligned."""
    names = {str(dtype): name for name, dtype in _DTYPES.items()}
    order = sorted(tensors, key=lambda name: (-tensors[name].dtype.itemsize, name))
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    position = 0
    for name in order:
        array = tensors[name]
        offsets = [position, position + array.nbytes]
        header[name] = {"dtype": names[str(array.dtype)], "shape": list(array.shape), "data_offsets": offsets}
        position += array.nbytes
    head = canonical_json(header)
    head += b" " * (-len(head) % 8)
    body = [np.ascontiguousarray(tensors[name]).tobytes() for name in order]
    return b"".join([len(head).to_bytes(8, "little"), head, *body])


def unpack(data: bytes) -> Container:
    """Parse and validate an untrusted package file.

    Returns:
        The valid parts; `Container.faults` lists what is wrong with the others.

    Raises:
        ValueError: The file has no safetensors header that can be parsed.
    """
    size = int.from_bytes(data[:8], "little")
    if len(data) < 8 or size > min(HEADER_LIMIT, len(data) - 8):
        raise ValueError(
            f"{len(data)} bytes with a header of {size}; expected the header inside the file, at most {HEADER_LIMIT}"
        )
    try:
        text = data[8 : 8 + size].decode("utf-8")
        cached = _cached(text)
        header = None if cached else _parsed(text)
    except ValueError as error:
        raise ValueError(f"the header is not strict JSON: {error}") from error
    container = Container()
    metadata, container.layout = cached or _parts_of(header, container.faults)
    _read_metadata(metadata, container)
    if container.layout is not None:
        _read_body(container.layout, memoryview(data)[8 + size :], container)
    return container


def _cached(text: str) -> tuple[Any, Layout] | None:
    """Fast path for headers in the form of `pack`: the tensor table comes from the cache if it is known.

    Returns:
        Metadata and layout; None if the header has another form or a fault.
    """
    if not text.startswith(_OPENING):
        return None
    try:
        metadata, end = load_json_at(text, len(_OPENING))
        table = text[end:].rstrip(" ")
        return (
            (metadata, _valid_layout(table))
            if len(table) <= _CACHED_TABLE_LIMIT and table[:1] + table[-1:] == ",}"
            else None
        )
    except ValueError:
        return None  # fall back: parsing the whole header reports the same fault


@lru_cache(maxsize=4)
def _valid_layout(table: str) -> Layout:
    """The layout for the rest of a header, which starts at the comma after the metadata.

    Raises:
        ValueError: The table has faults.
    """
    header, faults = load_json("{" + table[1:]), list[str]()
    layout = None if "__metadata__" in header else _layout(header, faults)
    if layout is None:
        raise ValueError("not a valid table")
    return layout


def _parsed(text: str) -> Any:
    if text[:1].isspace() or text.rstrip(" ")[-1:].isspace():
        raise ValueError("white space before it, or other white space than spaces after it")
    return load_json(text)


def _parts_of(header: Any, faults: list[str]) -> tuple[Any, Layout | None]:
    """Metadata and layout of any header; faults of its tensor table are added to `faults`."""
    if not isinstance(header, dict):
        raise ValueError(f"the header is {show(header)}; expected an object")
    return header.pop("__metadata__", {}), _layout(header, faults)


def _read_metadata(metadata: Any, container: Container) -> None:
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        container.faults.insert(0, f"__metadata__ is {show(metadata)}; expected an object of texts")
    else:
        container.metadata = metadata


def _layout(header: dict[str, Any], faults: list[str]) -> Layout | None:
    """The tensor table; None if it has faults, which are added to `faults`."""
    if len(header) > TENSOR_LIMIT:
        faults.append(f"contains {len(header)} tensors; expected at most {TENSOR_LIMIT}")
        return None
    for name, entry in header.items():
        faults += [f"tensor {show(name)}: {fault}" for fault in _entry_faults(entry, _dtypes_of(name))]
    if faults:
        return None  # the layout can be checked only if every entry is valid
    spans = sorted((*entry["data_offsets"], name) for name, entry in header.items())
    faults += _layout_faults(spans)
    if faults:
        return None
    entries = {
        name: Entry(_DTYPES[entry["dtype"]], tuple(entry["shape"]), entry["data_offsets"][0])
        for name, entry in header.items()
    }
    return Layout(entries, spans[-1][1] if spans else 0)


def _read_body(layout: Layout, body: memoryview, container: Container) -> None:
    if layout.size > len(body):
        container.faults.append(
            f"the file is cut short: the tensors take {layout.size} bytes, the file has {len(body)} for them"
        )
    elif layout.size < len(body):
        container.faults.append(f"{len(body) - layout.size} bytes follow the last tensor; expected none")
    else:
        container.body = body


def _dtypes_of(name: str) -> dict[str, np.dtype[Any]]:
    return _DRAFT_DTYPES if name.startswith(_DRAFT) else _VECTOR_DTYPES


def _entry_faults(entry: Any, dtypes: Mapping[str, np.dtype[Any]]) -> Iterator[str]:
    if not isinstance(entry, dict) or set(entry) != _ENTRY_KEYS:
        yield f"{show(entry)}; expected an object with dtype, shape and data_offsets"
        return
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in dtypes:
        *others, last = dtypes
        yield f"dtype {show(dtype)}; expected {', '.join(others)} or {last}"
    if not _whole_pair(shape, 1):
        yield f"shape {show(shape)}; expected [rows, columns], each from 1 to {SIDE_LIMIT}"
    if not _whole_pair(offsets, 0, 2**40):
        yield f"data_offsets {show(offsets)}; expected [begin, end]"
    elif isinstance(dtype, str) and dtype in dtypes and _whole_pair(shape, 1):
        needed = math.prod(shape) * dtypes[dtype].itemsize
        if offsets[1] - offsets[0] != needed:
            yield f"data_offsets {offsets} hold {offsets[1] - offsets[0]} bytes; {dtype} {shape} takes {needed}"


def _whole_pair(value: Any, low: int, high: int = SIDE_LIMIT) -> bool:
    if not isinstance(value, list) or len(value) != 2:
        return False
    return all(type(side) is int and low <= side <= high for side in value)


def _layout_faults(spans: list[tuple[int, int, str]]) -> Iterator[str]:
    """Gaps and overlaps: the tensors must be contiguous."""
    position = 0
    for begin, end, name in spans:
        if begin != position:
            what = "overlaps the tensor before it" if begin < position else "leaves a gap before it"
            yield f"tensor {show(name)} begins at byte {begin} and {what}; expected {position}"
        position = max(position, end)
