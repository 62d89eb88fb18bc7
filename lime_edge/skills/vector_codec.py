"""How a skill's vectors are stored: names, shapes, F16, and int8 in blocks with F16 scales.

Knows nothing of files or manifests. Format: docs/skill-format.md.
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
_TOGETHER = 2**18  # values dequantised in one go: what stays in a cache
SCALE = ".scale"  # ending of the name of an I8 tensor's scales

_MODULE = text(200, least=1, pattern=r"[A-Za-z0-9_][A-Za-z0-9_./-]*", what="a module name")


def kind_of(name: str) -> Kind:
    """The kind in ``<kind>.<module>``; the name must have been checked."""
    return cast(Kind, name.partition(".")[0])


def module_of(name: str) -> str:
    """The module in ``<kind>.<module>`` or ``<kind>.<module>.scale``."""
    return name.removesuffix(SCALE).partition(".")[2]


def scales_of(columns: int) -> int:
    """How many scales a row of `columns` values has."""
    return math.ceil(columns / BLOCK)


def quantise(values: Float32) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float16]]:
    """Symmetric int8 per block of 32 along the width.

    The scale is the smallest F16 not below max |value| / 127, so that nothing is clipped and every value
    is off by at most half a scale, denormal scales included. A block that rounds to zeros has scale 0.

    Args:
        values: [E, width], finite.

    Returns:
        q [E, width] and scale [E, ceil(width / 32)]; the scale is infinite where F16 cannot hold it.
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
    """q [E, width], times scale [E, ceil(width / 32)] where it has one -> [E, width]; exact in float32."""
    if scale is None:  # F16
        return q.astype(np.float32)
    return q * np.repeat(scale.astype(np.float32), BLOCK, axis=1)[:, : q.shape[1]]


def encode_vectors(tensors: Mapping[str, Array], dtype: str) -> dict[str, Array]:
    """Vectors as a package keeps them: F16, or I8 with ``.scale``.

    Args:
        tensors: ``<kind>.<module>`` -> float [E, width].
        dtype: ``"i8"`` or ``"f16"``.

    Raises:
        SkillFormatError: Another dtype; shapes or numbers that cannot be stored. Names all.
    """
    faults = [] if dtype in ("i8", "f16") else [f"dtype is {show(dtype)}; expected 'i8' or 'f16'"]
    stored: dict[str, Array] = {}
    for name, given in tensors.items():
        values = np.asarray(given)
        if values.ndim != 2 or not values.size or values.dtype.kind != "f":
            faults.append(f"{show(name)} is {values.dtype} {list(values.shape)}; expected floats [E, width]")
        elif not np.isfinite(values).all():
            faults.append(f"{show(name)} holds numbers that are not finite")
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
    """Vectors dequantised."""

    values: Mapping[str, Float32]  # ``<kind>.<module>`` -> read-only [E, width]
    peaks: dict[Kind, float]  # max |value| of each kind present
    sound: bool  # no number breaks a rule; `number_faults` names those that do


def decode_vectors(stored: Mapping[str, Array]) -> Restored:
    """Dequantise tensors of sound form, as a package keeps them."""
    return restore_batches(in_batches(stored), lambda names: np.concatenate([stored[name] for name in names]))


def restore_batches(batches: Sequence[Batch], gather: Callable[[Sequence[str]], Array]) -> Restored:
    """Dequantise tensors of sound form.

    Args:
        batches: From `in_batches`.
        gather: Stored tensors of these names, one below the other.
    """
    values: dict[str, Float32] = {}
    peaks: dict[Kind, float] = {}
    sound = True
    for kind, names, scales in batches:
        held = gather(names)  # [n * E, width]
        factors = gather(scales) if scales else None  # [n * E, blocks]
        sound = sound and sound_numbers(held, factors)
        with np.errstate(invalid="ignore"):  # what is not finite is reported by name
            flat = dequantise(held, factors)
        peaks[kind] = max(peaks.get(kind, 0.0), float(flat.max()), -float(flat.min()))
        flat.setflags(write=False)
        values.update(zip(names, flat.reshape(len(names), -1, flat.shape[1]), strict=True))
    return Restored(values, peaks, sound)


class Batch(NamedTuple):
    """Vectors of one kind that are stored alike, and their scales (none for F16): dequantised in one go."""

    kind: Kind
    names: tuple[str, ...]
    scales: tuple[str, ...]


class Form(Protocol):
    """An array, or what is known of one."""

    @property
    def dtype(self) -> np.dtype[Any]: ...
    @property
    def shape(self) -> tuple[int, ...]: ...


def in_batches(forms: Mapping[str, Form]) -> tuple[Batch, ...]:
    """Batches of at most `_TOGETHER` values (or one tensor) that cover all vectors of sound form."""
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
    """What checked tensors are stored as."""
    return "I8" if any(form.dtype == np.int8 for form in stored.values()) else "F16"


def tensor_faults(stored: Mapping[str, Array]) -> list[str]:
    """Every fault of the stored tensors among themselves, one line each.

    Args:
        stored: Tensors [rows, columns] of float16 or int8, by name.
    """
    return form_faults(stored) + number_faults(stored)


def form_faults(forms: Mapping[str, Form]) -> list[str]:
    """What is wrong with names, types and shapes."""
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
        faults.append("holds no vectors; expected at least one tensor <kind>.<module>")
    faults += _scale_faults(values, scales)
    faults += _family_faults(values)
    return faults


def number_faults(stored: Mapping[str, Array]) -> list[str]:
    """What is wrong with the numbers in tensors of sound name."""
    good = {name: array for name, array in stored.items() if _is_name(name)}
    return [f"tensor {name} {what}" for name, array in good.items() for what in _number_faults(name, array)]


def _is_name(name: str) -> bool:
    return name.partition(".")[0] in STORED and not list(_MODULE("", module_of(name)))


def _scale_faults(values: Mapping[str, Form], scales: Mapping[str, Form]) -> Iterator[str]:
    for name, array in values.items():
        found = scales.get(name + SCALE)
        if array.dtype != np.int8:
            if found is not None:
                yield f"tensor {name}{SCALE} is not wanted: {name} is F16"
        elif found is None:
            yield f"tensor {name}{SCALE} is missing: {name} is I8"
        else:
            wanted = (array.shape[0], scales_of(array.shape[1]))
            if found.dtype != np.float16 or found.shape != wanted:
                yield f"tensor {name}{SCALE} is {found.dtype} {list(found.shape)}; expected float16 {list(wanted)}"
    for name in scales:
        if name.removesuffix(SCALE) not in values:
            yield f"tensor {name} scales nothing: {name.removesuffix(SCALE)} is missing"


def _family_faults(values: Mapping[str, Form]) -> Iterator[str]:
    """One dtype in a package, one width for the kinds of a module that act on its output."""
    if len({array.dtype for array in values.values()}) > 1:
        yield "some vectors are F16 and some I8; expected one of them throughout"
    widths: dict[str, dict[Kind, int]] = {}
    for name, array in values.items():
        if kind_of(name) not in ("rank", "prefix"):
            widths.setdefault(module_of(name), {})[kind_of(name)] = array.shape[1]
    for module, found in widths.items():
        if len(set(found.values())) > 1:
            yield f"module {module} has widths {found}; expected one width"


def sound_numbers(values: Array, scales: Array | None) -> bool:
    """Whether a batch has none of `_number_faults`."""
    if scales is None:
        return bool(np.isfinite(values).all())
    return bool(values.min() >= -LEVELS and np.isfinite(scales).all() and scales.min() >= 0)


def _number_faults(name: str, array: Array) -> Iterator[str]:
    if array.dtype == np.int8:
        if (array < -LEVELS).any():
            yield f"holds -128; expected {-LEVELS} to {LEVELS}"
        return
    if not np.isfinite(array).all():
        yield "holds numbers that are not finite"
    elif name.endswith(SCALE) and (array < 0).any():
        yield "holds negative scales; expected 0 or more"
