"""How a skill's vectors are stored: names, shapes, F16, or int8 in blocks with F16 scales.

Format: docs/skill-format.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple, Protocol, cast

import numpy as np
import numpy.typing as npt

from lime_edge.common.strict_json import bounded, show, text
from lime_edge.contract.vector_kinds import STORED, Kind
from lime_edge.errors import SkillFormatError

Array = npt.NDArray[Any]
Float32 = npt.NDArray[np.float32]

BLOCK = 32  # consecutive values that share one scale
LEVELS = 127  # int8 from -127 to 127
_TOGETHER = 2**18  # values dequantised at a time: they fit into the CPU cache
SCALE = ".scale"  # suffix of the name of an I8 tensor's scales

_MODULE = text(200, least=1, pattern=r"[A-Za-z0-9_][A-Za-z0-9_./-]*", what="a module name")


def kind_of(name: str) -> Kind:
    """The kind in ``<kind>.<module>``; the name must be valid."""
    return cast(Kind, name.partition(".")[0])


def module_of(name: str) -> str:
    """The module in ``<kind>.<module>`` or ``<kind>.<module>.scale``."""
    return name.removesuffix(SCALE).partition(".")[2]


def scales_of(columns: int) -> int:
    """The number of scales for a row of `columns` values."""
    return math.ceil(columns / BLOCK)


def quantise(values: Float32) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float16]]:
    """Symmetric int8 per block of 32 along the width.

    The scale is the smallest F16 not below max |value| / 127. So nothing is clipped, and the error of every value is
    at most half a scale, also for denormal scales. A block that rounds to zeros has scale 0.

    Args:
        values: [E, width], finite.

    Returns:
        q [E, width] and scale [E, ceil(width / 32)]; a scale is infinite where it exceeds the range of F16.
    """
    rows, columns = values.shape
    blocks = np.zeros((rows, scales_of(columns), BLOCK))  # float64: [E, blocks, 32]
    blocks.reshape(rows, -1)[:, :columns] = values
    exact = np.abs(blocks).max(-1) / LEVELS  # [E, blocks]
    with np.errstate(over="ignore", under="ignore"):
        nearest = exact.astype(np.float16)
        scale = np.where(nearest < exact, np.nextafter(nearest, np.float16(np.inf)), nearest)
    divisor = np.where(scale > 0, scale, np.float16(1)).astype(np.float64)[..., None]
    q = np.rint(blocks / divisor).astype(np.int8)
    scale = np.where(q.any(-1) | np.isinf(scale), scale, np.float16(0))
    return np.ascontiguousarray(q.reshape(rows, -1)[:, :columns]), scale


def dequantise(q: Array, scale: Array | None) -> Float32:
    """q [E, width], times scale [E, ceil(width / 32)] if it has one -> [E, width]; exact in float32."""
    if scale is None:  # F16
        return q.astype(np.float32)
    return q * np.repeat(scale.astype(np.float32), BLOCK, axis=1)[:, : q.shape[1]]


def encode_vectors(tensors: Mapping[str, Array], dtype: str) -> dict[str, Array]:
    """Vectors in their stored form: F16, or I8 with ``.scale``.

    Args:
        tensors: ``<kind>.<module>`` -> float [E, width].
        dtype: ``"i8"`` or ``"f16"``.

    Raises:
        SkillFormatError: Unknown dtype, or shapes or numbers that cannot be stored; names every fault.
    """
    faults = [] if dtype in ("i8", "f16") else [f"dtype is {show(dtype)}; expected 'i8' or 'f16'"]
    stored: dict[str, Array] = {}
    for name, given in tensors.items():
        values = np.asarray(given)
        if values.ndim != 2 or not values.size or values.dtype.kind != "f":
            faults.append(f"{show(name)} is {values.dtype} {list(values.shape)}; expected floats [E, width]")
        elif not np.isfinite(values).all():
            faults.append(f"{show(name)} contains numbers that are not finite")
        else:
            parts = _stored_parts(name, values, dtype)
            if not all(np.isfinite(part).all() for part in parts.values()):
                faults.append(f"{show(name)} reaches {np.abs(values).max():g}, too large for {dtype}")
            stored |= parts
    if not faults:
        faults = tensor_faults(stored)
    if faults:
        raise SkillFormatError("the skill cannot be written", bounded(faults))
    return stored


def _stored_parts(name: str, values: Array, dtype: str) -> dict[str, Array]:
    if dtype == "i8":
        q, scale = quantise(values)
        return {name: q, name + SCALE: scale}
    with np.errstate(over="ignore", under="ignore"):
        return {name: values.astype(np.float16)}


class Restored(NamedTuple):
    """Dequantised vectors."""

    values: Mapping[str, Float32]  # ``<kind>.<module>`` -> read-only [E, width]
    peaks: dict[Kind, float]  # max |value| of each kind present
    valid: bool  # whether all numbers are; otherwise `number_faults` names the faults


def decode_vectors(stored: Mapping[str, Array]) -> Restored:
    """Dequantise well-formed stored tensors."""
    return restore_batches(in_batches(stored), lambda names: np.concatenate([stored[name] for name in names]))


def restore_batches(batches: Sequence[Batch], gather: Callable[[Sequence[str]], Array]) -> Restored:
    """Dequantise well-formed stored tensors, batch by batch.

    Args:
        batches: From `in_batches`.
        gather: Returns the stored tensors of the given names, stacked by rows.
    """
    values: dict[str, Float32] = {}
    peaks: dict[Kind, float] = {}
    valid = True
    for kind, names, scales in batches:
        numbers = gather(names)  # [n * E, width]
        factors = gather(scales) if scales else None  # [n * E, blocks]
        valid = valid and valid_numbers(numbers, factors)
        with np.errstate(invalid="ignore"):  # non-finite values are reported by name later
            flat = dequantise(numbers, factors)
        peaks[kind] = max(peaks.get(kind, 0.0), float(flat.max()), -float(flat.min()))
        flat.setflags(write=False)
        values.update(zip(names, flat.reshape(len(names), -1, flat.shape[1]), strict=True))
    return Restored(values, peaks, valid)


class Batch(NamedTuple):
    """Vectors of one kind, shape and type, and their scales (none for F16), dequantised together."""

    kind: Kind
    names: tuple[str, ...]
    scales: tuple[str, ...]


class Form(Protocol):
    """Type and shape of a tensor: an array, or its entry in a tensor table."""

    @property
    def dtype(self) -> np.dtype[Any]: ...
    @property
    def shape(self) -> tuple[int, ...]: ...


def in_batches(forms: Mapping[str, Form]) -> tuple[Batch, ...]:
    """Group all vectors into batches of at most `_TOGETHER` values, or of one larger vector."""
    alike: dict[tuple[Kind, tuple[int, ...], bool], list[str]] = {}
    for name, form in forms.items():
        if not name.endswith(SCALE):
            alike.setdefault((kind_of(name), form.shape, form.dtype == np.int8), []).append(name)
    found = []
    for (kind, shape, quantised), names in alike.items():
        step = max(1, _TOGETHER // math.prod(shape))
        for start in range(0, len(names), step):
            some = tuple(names[start : start + step])
            found.append(Batch(kind, some, tuple(name + SCALE for name in some) if quantised else ()))
    return tuple(found)


def stored_dtype(stored: Mapping[str, Form]) -> Literal["F16", "I8"]:
    """The type of the vectors in well-formed stored tensors."""
    return "I8" if any(form.dtype == np.int8 for form in stored.values()) else "F16"


def tensor_faults(stored: Mapping[str, Array]) -> list[str]:
    """Every fault of stored tensors that can be found without the manifest, one line each.

    Args:
        stored: Tensors [rows, columns] of float16 or int8, by name.
    """
    return form_faults(stored) + number_faults(stored)


def form_faults(forms: Mapping[str, Form]) -> list[str]:
    """Faults of names, types and shapes."""
    good = {name: form for name, form in forms.items() if _is_name(name)}
    kinds = ", ".join(STORED)
    faults = [
        f"tensor {show(name)}: expected a name <kind>.<module> or <kind>.<module>{SCALE}, kind one of {kinds}"
        for name in forms
        if name not in good
    ]
    values = {name: form for name, form in good.items() if not name.endswith(SCALE)}
    scales = {name: form for name, form in good.items() if name.endswith(SCALE)}
    if not values:
        faults.append("contains no vectors; expected at least one tensor <kind>.<module>")
    faults += _scale_faults(values, scales)
    faults += _family_faults(values)
    return faults


def number_faults(stored: Mapping[str, Array]) -> list[str]:
    """Faults of the numbers in tensors with valid names."""
    good = {name: array for name, array in stored.items() if _is_name(name)}
    return [f"tensor {name} {what}" for name, array in good.items() for what in _number_faults(name, array)]


def _is_name(name: str) -> bool:
    return name.partition(".")[0] in STORED and not list(_MODULE("", module_of(name)))


def _scale_faults(values: Mapping[str, Form], scales: Mapping[str, Form]) -> Iterator[str]:
    for name, array in values.items():
        found = scales.get(name + SCALE)
        if array.dtype != np.int8:
            if found is not None:
                yield f"tensor {name}{SCALE} is not allowed: {name} is F16"
        elif found is None:
            yield f"tensor {name}{SCALE} is missing: {name} is I8"
        else:
            wanted = (array.shape[0], scales_of(array.shape[1]))
            if found.dtype != np.float16 or found.shape != wanted:
                yield f"tensor {name}{SCALE} is {found.dtype} {list(found.shape)}; expected float16 {list(wanted)}"
    for name in scales:
        if name.removesuffix(SCALE) not in values:
            yield f"tensor {name} has no vector: {name.removesuffix(SCALE)} is missing"


def _family_faults(values: Mapping[str, Form]) -> Iterator[str]:
    """A package has one type; the kinds that act on a module's output have one width."""
    if len({array.dtype for array in values.values()}) > 1:
        yield "some vectors are F16 and some I8; expected one of them throughout"
    widths: dict[str, dict[Kind, int]] = {}
    for name, array in values.items():
        if kind_of(name) not in ("rank", "prefix"):
            widths.setdefault(module_of(name), {})[kind_of(name)] = array.shape[1]
    for module, found in widths.items():
        if len(set(found.values())) > 1:
            yield f"module {module} has widths {found}; expected one width"


def valid_numbers(values: Array, scales: Array | None) -> bool:
    """Whether a batch has no `_number_faults`; faster, because it names none."""
    if scales is None:
        return bool(np.isfinite(values).all())
    return bool(values.min() >= -LEVELS and np.isfinite(scales).all() and scales.min() >= 0)


def _number_faults(name: str, array: Array) -> Iterator[str]:
    if array.dtype == np.int8:
        if (array < -LEVELS).any():
            yield f"contains -128; expected {-LEVELS} to {LEVELS}"
        return
    if not np.isfinite(array).all():
        yield "contains numbers that are not finite"
    elif name.endswith(SCALE) and (array < 0).any():
        yield "contains negative scales; expected 0 or more"
