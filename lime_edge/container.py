"""The bytes of a skill package: a bounded safetensors reader and writer.

Its own reader, because a package comes from strangers: nothing in the header is believed, and nothing is
allocated, before sizes, offsets and types have been checked against the bytes that are really there.
Knows nothing of what the tensors mean. Format: docs/skill-format.md.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from .checks import load_json, show
from .contract import canonical_json

Array = npt.NDArray[Any]

HEADER_LIMIT = 8 * 2**20  # bytes
TENSOR_LIMIT = 2**14  # tensors in a package
SIDE_LIMIT = 2**24  # elements along one side of a tensor

_DTYPES: dict[str, np.dtype[Any]] = {"F16": np.dtype("<f2"), "I8": np.dtype("i1")}
_ENTRY_KEYS = {"dtype", "shape", "data_offsets"}


@dataclass
class Container:
    """A package taken apart.

    Attributes:
        metadata: Text under every metadata key.
        tensors: Read-only views [rows, columns] into the file's bytes, of the sound entries.
        faults: Everything wrong, one line each.
    """

    metadata: dict[str, str] = field(default_factory=dict)
    tensors: dict[str, Array] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)


def pack(metadata: Mapping[str, str], tensors: Mapping[str, Array]) -> bytes:
    """The one byte form of a package: F16 tensors first (so that all are aligned), then by name."""
    names = {str(dtype): name for name, dtype in _DTYPES.items()}
    order = sorted(tensors, key=lambda name: (tensors[name].dtype.itemsize != 2, name))
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
    """Take a package apart without believing it.

    Returns:
        What is sound, and `Container.faults` for the rest.

    Raises:
        ValueError: There is no safetensors header to speak of.
    """
    size = int.from_bytes(data[:8], "little")
    if len(data) < 8 or size > min(HEADER_LIMIT, len(data) - 8):
        raise ValueError(
            f"{len(data)} bytes with a header of {size}; expected the header inside the file, at most {HEADER_LIMIT}"
        )
    try:
        header = load_json(data[8 : 8 + size])
    except ValueError as error:
        raise ValueError(f"the header is not strict JSON: {error}") from error
    if not isinstance(header, dict):
        raise ValueError(f"the header is {show(header)}; expected an object")
    box = Container()
    _read_metadata(header.pop("__metadata__", {}), box)
    _read_tensors(header, data, 8 + size, box)
    return box


def _read_metadata(found: Any, box: Container) -> None:
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        box.faults.append(f"__metadata__ is {show(found)}; expected an object of texts")
    else:
        box.metadata = found


def _read_tensors(header: dict[str, Any], data: bytes, start: int, box: Container) -> None:
    spans: list[tuple[int, int, str]] = []
    if len(header) > TENSOR_LIMIT:
        box.faults.append(f"holds {len(header)} tensors; expected at most {TENSOR_LIMIT}")
        return
    for name, entry in header.items():
        faults = list(_entry_faults(entry))
        box.faults += [f"tensor {show(name)}: {fault}" for fault in faults]
        if not faults:
            spans.append((*entry["data_offsets"], name))
    if len(spans) < len(header):
        return  # with an unsound entry the layout cannot be judged
    layout = list(_layout_faults(sorted(spans), len(data) - start))
    box.faults += layout
    if layout:
        return
    for begin, _, name in spans:
        dtype, shape = _DTYPES[header[name]["dtype"]], header[name]["shape"]
        flat = np.frombuffer(data, dtype, math.prod(shape), start + begin)
        box.tensors[name] = flat.reshape(shape)  # [rows, columns]


def _entry_faults(entry: Any) -> Iterator[str]:
    if not isinstance(entry, dict) or set(entry) != _ENTRY_KEYS:
        yield f"{show(entry)}; expected an object with dtype, shape and data_offsets"
        return
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _DTYPES:
        yield f"dtype {show(dtype)}; expected F16 or I8"
    if not _whole_pair(shape, 1):
        yield f"shape {show(shape)}; expected [rows, columns], each from 1 to {SIDE_LIMIT}"
    if not _whole_pair(offsets, 0, 2**40):
        yield f"data_offsets {show(offsets)}; expected [begin, end]"
    elif isinstance(dtype, str) and dtype in _DTYPES and _whole_pair(shape, 1):
        needed = math.prod(shape) * _DTYPES[dtype].itemsize
        if offsets[1] - offsets[0] != needed:
            yield f"data_offsets {offsets} hold {offsets[1] - offsets[0]} bytes; {dtype} {shape} takes {needed}"


def _whole_pair(value: Any, low: int, high: int = SIDE_LIMIT) -> bool:
    if not isinstance(value, list) or len(value) != 2:
        return False
    return all(type(side) is int and low <= side <= high for side in value)


def _layout_faults(spans: list[tuple[int, int, str]], size: int) -> Iterator[str]:
    """The tensors must lie one after another and fill the file to its last byte."""
    position = 0
    for begin, end, name in spans:
        if begin != position:
            what = "overlaps the tensor before it" if begin < position else "leaves a gap before it"
            yield f"tensor {show(name)} begins at byte {begin} and {what}; expected {position}"
        position = max(position, end)
    if position > size:
        yield f"the file is cut short: the tensors take {position} bytes, {size} are there"
    elif position < size:
        yield f"{size - position} bytes follow the last tensor; expected none"
