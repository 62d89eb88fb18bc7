"""The skill package ``NAME.lime``: write one, read one from a stranger, hold it against a model.

Reading raises SkillFormatError with every fault at once; what passes is sound, inside its declared bounds and
matches its digest. Whether it fits a model is `check_skill`. Knows nothing of ONNX, of torch or of what is
already loaded. Normative page: docs/skill-format.md. Vectors: LiME, arXiv 2604.02338.
"""

from __future__ import annotations

import math
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import ROUND_UP, Context, Decimal
from pathlib import Path
from typing import Any, Literal

from lime_edge.common.digests import canonical_json, tensor_digest
from lime_edge.common.files import write_file
from lime_edge.common.strict_json import bounded, show
from lime_edge.contract.vector_kinds import STORED, Kind
from lime_edge.errors import SkillError, SkillFormatError

from . import lazy_vectors
from .layout import plan
from .lazy_vectors import LazyVectors
from .manifest import Manifest, OtherFormatError
from .safetensors_file import Container, Layout, pack, unpack
from .vector_codec import (
    Array,
    Float32,
    Restored,
    decode_vectors,
    encode_vectors,
    module_of,
    number_faults,
    restore_batches,
    stored_dtype,
)

FILE_LIMIT = 256 * 2**20  # bytes of one package


@dataclass(frozen=True, eq=False)
class Skill:
    """A sound skill package in memory.

    Attributes:
        manifest: What it says of itself.
        tensors: ``<kind>.<module>`` -> read-only float32 [E, width], dequantised; of large packages at every look.
        dtype: How the values are stored.
        size: Bytes of the file.
        path: Where it was read from.
    """

    manifest: Manifest
    tensors: Mapping[str, Float32]
    dtype: Literal["F16", "I8"]
    size: int
    path: Path

    @property
    def name(self) -> str:
        return self.manifest.name

    @property
    def digest(self) -> str:
        """SHA-256 over manifest and stored tensors: the identity of the skill."""
        return self.manifest.digest

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """The kinds of vectors present, in the order of `STORED`."""
        return tuple(kind for kind in STORED if kind in self.manifest.bounds)

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Of the tensors."""
        if isinstance(self.tensors, LazyVectors):
            return self.tensors.shapes
        return {name: array.shape for name, array in self.tensors.items()}


def digest_of(document: Mapping[str, Any], stored: Mapping[str, Array]) -> str:
    """The digest of a package, reproducible by anyone from docs/skill-format.md.

    Args:
        document: The manifest; its own ``digest`` is left out.
        stored: Every tensor as stored, scales included.
    """
    head = canonical_json({key: value for key, value in document.items() if key != "digest"}) + b"\n"
    return tensor_digest(stored.items(), head)


def write_skill(
    path: str | os.PathLike[str],
    manifest: Manifest,
    tensors: Mapping[str, Array],
    dtype: Literal["i8", "f16"] = "i8",
) -> Skill:
    """Quantise, seal and write a package; the same input gives the same bytes, and no half-written file.

    Args:
        path: The file to make or replace.
        manifest: Its `bounds` and `digest` are computed here.
        tensors: ``<kind>.<module>`` -> float [E, width].
        dtype: ``"i8"`` (blocks of 32 with F16 scales) or ``"f16"``.

    Returns:
        What `read_skill` gives for the file: an author measures the values that ship.

    Raises:
        SkillFormatError: The manifest or the tensors break a rule; nothing is written.
        SkillError: The file cannot be written.
    """
    stored = encode_vectors(tensors, dtype)
    sealed = manifest.sealed({k: _round_up(v) for k, v in decode_vectors(stored).peaks.items()}, "0" * 64)
    document = Manifest.from_dict(sealed.to_dict()).to_dict()
    document["digest"] = digest_of(document, stored)
    data = pack({"lime": canonical_json(document).decode()}, stored)
    skill = decode_skill(data, path)
    _replace(skill.path, data)
    return skill


def read_skill(path: str | os.PathLike[str]) -> Skill:
    """Read a package from anywhere, believing nothing.

    Raises:
        SkillFormatError: Names every fault at once, what was expected and what to do.
    """
    return decode_skill(read_package(path), path)


def _round_up(value: float) -> float:
    """Four significant digits, never below the value itself."""
    return float(Context(prec=4, rounding=ROUND_UP).create_decimal(Decimal(value)))


def _replace(path: Path, data: bytes) -> None:
    try:
        write_file(path, data)
    except OSError as error:
        raise SkillError(f"{path} cannot be written: {error.strerror or error}") from error


def read_package(path: str | os.PathLike[str]) -> bytes:
    """The whole file, once, unjudged: what is checked is what is used.

    Raises:
        SkillFormatError: Not there, not a regular file, or over `FILE_LIMIT`.
    """
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)  # a pipe must not block
    try:
        descriptor = os.open(path, flags)
        try:
            info = os.fstat(descriptor)
            if not stat.S_ISREG(info.st_mode):
                raise SkillFormatError(f"{path} is not a regular file; expected one .lime file")
            if info.st_size > FILE_LIMIT:
                raise SkillFormatError(f"{path} has {info.st_size} bytes; expected at most {FILE_LIMIT}")
            with open(descriptor, "rb", closefd=False) as file:
                data = file.read(info.st_size + 1)
        finally:
            os.close(descriptor)
    except FileNotFoundError as error:
        raise SkillFormatError(f"{path} does not exist; expected a .lime file") from error
    except (OSError, ValueError) as error:
        if isinstance(error, SkillFormatError):
            raise
        raise SkillFormatError(f"{show(str(path))} cannot be read: {error}") from error
    if len(data) != info.st_size:
        raise SkillFormatError(f"{path} changed while it was read; try again")
    return data


def decode_skill(data: bytes, path: str | os.PathLike[str]) -> Skill:
    """`read_skill` for bytes that came from `path`; raises as it does."""
    try:
        box = unpack(data)
    except ValueError as error:
        raise SkillFormatError(f"{path} is not a skill package: not a safetensors file", [str(error)]) from error
    faults: list[str] = []
    manifest: Manifest | None = None
    try:
        manifest = _read_manifest(box.metadata)
    except OtherFormatError as error:
        raise SkillFormatError(f"{path} has {error.message}") from error
    except SkillFormatError as error:
        faults += error.faults or [error.message]
    restored = _restore(box, faults)
    if manifest is not None and box.layout is not None and not box.faults:
        faults += _seal_faults(manifest, box.metadata["lime"], box.layout, box.body)
    if manifest is not None and not faults:
        faults += _bound_faults(manifest, restored.peaks)
    if manifest is None or box.layout is None or faults:
        raise SkillFormatError(f"{path} is not a sound skill package", bounded(faults))
    return Skill(manifest, restored.values, stored_dtype(box.layout.entries), len(data), Path(path))


def _restore(box: Container, faults: list[str]) -> Restored:
    """The vectors of a package, or nothing after adding all that is wrong with its tensors."""
    nothing = Restored({}, {}, False)
    if box.layout is None or box.faults:
        faults += box.faults
        return nothing
    known = plan(box.layout)
    if known.faults:
        restored = nothing
    elif known.values > lazy_vectors.KEPT:
        restored = lazy_vectors.survey(box.tensors)
    else:
        restored = restore_batches(known.batches, box.gather)
    if not restored.sound:
        faults += [*known.faults, *number_faults(box.tensors)]
    return restored


def _read_manifest(metadata: Mapping[str, str]) -> Manifest:
    faults = [
        f"__metadata__ has the unknown key {show(key)}; expected only 'lime'" for key in metadata if key != "lime"
    ]
    if "lime" not in metadata:
        faults.append("__metadata__ has no key 'lime': a safetensors file, but not a skill package")
    if faults:
        raise SkillFormatError("the metadata cannot be used", faults)
    return Manifest.from_json(metadata["lime"])


def _seal_faults(manifest: Manifest, text: str, layout: Layout, body: memoryview) -> Iterator[str]:
    """E, the kinds declared, and the digest, against the tensors.

    The text is canonical: what it says of its digest stands in it once, and can be cut out.
    """
    known = plan(layout)
    if known.experts != {manifest.experts}:
        for name, entry in layout.entries.items():
            if entry.shape[0] != manifest.experts:
                yield f"tensor {show(name)} has {entry.shape[0]} rows; expected E = {manifest.experts}"
    if known.kinds != set(manifest.bounds):
        declared, present = show(sorted(manifest.bounds)), show(sorted(known.kinds))
        yield f"manifest.bounds declares {declared} but the tensors are {present}; expected the same"
    if not known.named:
        return  # no such name is sound
    found = known.digest(text.replace(f'"digest":"{manifest.digest}",', "").encode() + b"\n", body)
    if found != manifest.digest:
        yield (
            f"the digest is {found[:12]}, the manifest says {manifest.digest[:12]}: the file was changed or damaged "
            "after it was made; get it again"
        )


def _bound_faults(manifest: Manifest, peaks: Mapping[Kind, float]) -> Iterator[str]:
    for kind, peak in peaks.items():
        if peak > manifest.bounds[kind]:
            yield f"{kind} reaches {peak:g}; manifest.bounds.{kind} promises at most {manifest.bounds[kind]:g}"


def describe(skill: Skill) -> dict[str, Any]:
    """What ``lime-edge inspect`` prints of a skill, as plain JSON values."""
    manifest = skill.manifest
    facts = manifest.to_dict()
    for bulky in ("golden", "centroid"):
        facts.pop(bulky, None)
    return facts | {
        "file": str(skill.path),
        "size": skill.size,
        "dtype": skill.dtype,
        "kinds": list(skill.kinds),
        "modules_count": len({module_of(name) for name in skill.shapes}),
        "values": sum(math.prod(shape) for shape in skill.shapes.values()),
        "golden_prompts": len(manifest.golden),
        "centroid_size": len(manifest.centroid or ()),
    }
