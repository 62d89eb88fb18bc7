"""How a skill's vectors are stored: names, shapes, F16, and int8 in blocks with F16 scales.

Knows nothing of files or manifests. Format: docs/skill-format.md.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, Literal, cast

import numpy as np
import numpy.typing as npt

from .checks import bounded, show, text
from .contract import KINDS, Kind
from .errors import SkillFormatError

Array = npt.NDArray[Any]
Float32 = npt.NDArray[np.float32]

BLOCK = 32  # consecutive values that share one scale
LEVELS = 127  # int8 from -127 to 127
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


def dequantise(q: npt.NDArray[np.int8], scale: npt.NDArray[np.float16]) -> Float32:
    """q [E, width] times scale [E, ceil(width / 32)] -> [E, width]; exact in float32."""
    return q * np.repeat(scale.astype(np.float32), BLOCK, axis=1)[:, : q.shape[1]]


def store(tensors: Mapping[str, Array], dtype: str) -> dict[str, Array]:
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


def restore(stored: Mapping[str, Array]) -> dict[str, Float32]:
    """Checked tensors dequantised: ``<kind>.<module>`` -> read-only float32 [E, width]."""
    values: dict[str, Float32] = {}
    for name, array in stored.items():
        if name.endswith(SCALE):
            continue
        value = dequantise(array, stored[name + SCALE]) if array.dtype == np.int8 else array.astype(np.float32)
        value.setflags(write=False)
        values[name] = value
    return values


def peaks(values: Mapping[str, Float32]) -> dict[Kind, float]:
    """max |value| of each kind present."""
    found: dict[Kind, float] = {}
    for name, array in values.items():
        kind = kind_of(name)
        found[kind] = max(found.get(kind, 0.0), float(np.abs(array).max()))
    return found


def stored_dtype(stored: Mapping[str, Array]) -> Literal["F16", "I8"]:
    """What checked tensors are stored as."""
    return "I8" if any(array.dtype == np.int8 for array in stored.values()) else "F16"


def tensor_faults(stored: Mapping[str, Array]) -> list[str]:
    """Every fault of the stored tensors among themselves, one line each.

    Args:
        stored: Tensors [rows, columns] of float16 or int8, by name.
    """
    good = {name: array for name, array in stored.items() if _is_name(name)}
    kinds = ", ".join(KINDS)
    faults = [
        f"tensor {show(name)}: expected a name <kind>.<module> or <kind>.<module>{SCALE}, kind one of {kinds}"
        for name in stored
        if name not in good
    ]
    values = {name: array for name, array in good.items() if not name.endswith(SCALE)}
    scales = {name: array for name, array in good.items() if name.endswith(SCALE)}
    if not values:
        faults.append("holds no vectors; expected at least one tensor <kind>.<module>")
    faults += _scale_faults(values, scales)
    faults += _family_faults(values)
    for name, array in good.items():
        faults += [f"tensor {name} {what}" for what in _number_faults(name, array)]
    return faults


def _is_name(name: str) -> bool:
    return name.partition(".")[0] in KINDS and not list(_MODULE("", module_of(name)))


def _scale_faults(values: Mapping[str, Array], scales: Mapping[str, Array]) -> Iterator[str]:
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


def _family_faults(values: Mapping[str, Array]) -> Iterator[str]:
    """One dtype in a package, one width for the kinds of a module that act on its output."""
    if len({array.dtype for array in values.values()}) > 1:
        yield "some vectors are F16 and some I8; expected one of them throughout"
    widths: dict[str, dict[Kind, int]] = {}
    for name, array in values.items():
        if kind_of(name) != "rank":
            widths.setdefault(module_of(name), {})[kind_of(name)] = array.shape[1]
    for module, found in widths.items():
        if len(set(found.values())) > 1:
            yield f"module {module} has widths {found}; expected one width"


def _number_faults(name: str, array: Array) -> Iterator[str]:
    if array.dtype == np.int8:
        if (array < -LEVELS).any():
            yield f"holds -128; expected {-LEVELS} to {LEVELS}"
        return
    if not np.isfinite(array).all():
        yield "holds numbers that are not finite"
    elif name.endswith(SCALE) and (array < 0).any():
        yield "holds negative scales; expected 0 or more"
