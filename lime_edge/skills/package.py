"""Writes and reads skill packages, ``NAME.lime``. A package is untrusted input.

Reading raises SkillFormatError with every fault at once. A package that passes is within its declared bounds and
matches its digest. Whether it fits a model is checked by `compatibility.check_skill`.
Normative page: docs/skill-format.md. Vectors: LiME, arXiv 2604.02338.
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

import numpy as np

from lime_edge.common.digests import canonical_json, tensor_digest
from lime_edge.common.files import write_file
from lime_edge.common.strict_json import bounded, show
from lime_edge.contract.vector_kinds import STORED, Kind
from lime_edge.errors import SkillError, SkillFormatError

from . import lazy_vectors
from .draft_table import DTYPES as DRAFT_DTYPES
from .draft_table import DraftTable, draft_number_faults
from .interface import Interface
from .layout import layout_facts
from .lazy_vectors import LazyVectors
from .manifest import Manifest, OtherFormatError
from .route import CENTROIDS, Route, route_number_faults
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
    """A valid skill package in memory.

    Attributes:
        manifest: The validated manifest.
        tensors: ``<kind>.<module>`` -> read-only float32 [E, width], dequantised; for large packages on every access.
        dtype: Type of the stored vectors.
        size: Size of the file in bytes.
        path: The file that it was read from.
        draft: The draft table, if it has one.
        route: The centroids of its requests, if it has some; float32.
    """

    manifest: Manifest
    tensors: Mapping[str, Float32]
    dtype: Literal["F16", "I8"]
    size: int
    path: Path
    draft: DraftTable | None = None
    route: Route | None = None

    @property
    def interface(self) -> Interface:
        """How a plain request becomes a prompt, and what form the answers have."""
        return self.manifest.interface

    @property
    def name(self) -> str:
        return self.manifest.name

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of the manifest and the stored tensors: the identity of the skill."""
        return self.manifest.digest

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """The kinds of vectors present, in the order of `STORED`."""
        return tuple(kind for kind in STORED if kind in self.manifest.bounds)

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """``<kind>.<module>`` -> shape; dequantises nothing."""
        if isinstance(self.tensors, LazyVectors):
            return self.tensors.shapes
        return {name: array.shape for name, array in self.tensors.items()}


def digest_of(document: Mapping[str, Any], stored: Mapping[str, Array]) -> str:
    """The digest (hex) of a package; docs/skill-format.md shows how to compute it without this library.

    Args:
        document: The manifest; its ``digest`` key is left out.
        stored: Every tensor as stored, scales included.
    """
    head = canonical_json({key: value for key, value in document.items() if key != "digest"}) + b"\n"
    return tensor_digest(stored.items(), head)


def write_skill(
    path: str | os.PathLike[str],
    manifest: Manifest,
    tensors: Mapping[str, Array],
    dtype: Literal["i8", "f16"] = "i8",
    draft: DraftTable | None = None,
    route: Route | None = None,
) -> Skill:
    """Quantise vectors and write a package atomically; the same input gives the same bytes.

    Args:
        path: The file to create or replace.
        manifest: Its `bounds`, `draft`, `route` and `digest` are computed here.
        tensors: ``<kind>.<module>`` -> float [E, width].
        dtype: ``"i8"`` (blocks of 32 with F16 scales) or ``"f16"``.
        draft: Its draft table; format 2 only.
        route: The centroids of its requests; format 2 only.

    Returns:
        The same as `read_skill` for this file, so that an author measures the quantised values that ship.

    Raises:
        SkillFormatError: The manifest or a tensor is invalid; nothing is written.
        SkillError: The file cannot be written.
    """
    stored = encode_vectors(tensors, dtype)
    bounds = {kind: _round_up(peak) for kind, peak in decode_vectors(stored).peaks.items()}
    sealed = manifest.sealed(bounds, "0" * 64, draft.meta() if draft else None, route.meta() if route else None)
    stored |= {**(draft.stored if draft else {}), **(route.stored() if route else {})}
    document = Manifest.from_dict(sealed.to_dict()).to_dict()
    document["digest"] = digest_of(document, stored)
    data = pack({"lime": canonical_json(document).decode()}, stored)
    skill = decode_skill(data, path)
    _replace(skill.path, data)
    return skill


def read_skill(path: str | os.PathLike[str]) -> Skill:
    """Read and validate an untrusted package.

    Raises:
        SkillFormatError: Names every fault at once, with what was expected and what to do.
    """
    return decode_skill(read_package(path), path)


def _round_up(value: float) -> float:
    """Round up to four significant digits."""
    return float(Context(prec=4, rounding=ROUND_UP).create_decimal(Decimal(value)))


def _replace(path: Path, data: bytes) -> None:
    try:
        write_file(path, data)
    except OSError as error:
        raise SkillError(f"{path} cannot be written: {error.strerror or error}") from error


def read_package(path: str | os.PathLike[str]) -> bytes:
    """Read the whole file once, without validating it, so that the validated bytes are the bytes that are used.

    Raises:
        SkillFormatError: The file is missing, not a regular file, or larger than `FILE_LIMIT`.
    """
    flags = (
        os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    )  # opening a named pipe must not block
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
    """`read_skill` for bytes that were already read from `path`; raises the same errors."""
    try:
        container = unpack(data)
    except ValueError as error:
        raise SkillFormatError(f"{path} is not a skill package: not a safetensors file", [str(error)]) from error
    faults: list[str] = []
    manifest: Manifest | None = None
    try:
        manifest = _read_manifest(container.metadata)
    except OtherFormatError as error:
        raise SkillFormatError(f"{path} has {error.message}") from error
    except SkillFormatError as error:
        faults += error.faults or [error.message]
    restored = _restore(container, faults)
    draft, centroids = _companions(container, faults)
    if manifest is not None and container.layout is not None and not container.faults:
        faults += _seal_faults(manifest, container.metadata["lime"], container.layout, container.body)
    if manifest is not None and not faults:
        faults += _bound_faults(manifest, restored.peaks)
    if manifest is None or container.layout is None or faults:
        raise SkillFormatError(f"{path} is not a valid skill package", bounded(faults))
    dtype = stored_dtype(layout_facts(container.layout).vectors)
    route = None
    if manifest.route is not None and centroids is not None:
        route = Route(**manifest.route, centroids=centroids.astype(np.float32))
    return Skill(manifest, restored.values, dtype, len(data), Path(path), draft, route)


def _restore(container: Container, faults: list[str]) -> Restored:
    """The vectors of a package; empty if its tensors are invalid, in which case `faults` grows."""
    nothing = Restored({}, {}, False)
    if container.layout is None or container.faults:
        faults += container.faults
        return nothing
    facts = layout_facts(container.layout)
    if facts.faults:
        restored = nothing
    elif facts.values > lazy_vectors.EAGER_LIMIT:
        restored = lazy_vectors.survey({name: container.tensors[name] for name in facts.vectors})
    else:
        restored = restore_batches(facts.batches, container.gather)
    if not restored.valid:
        faults += [*facts.faults, *number_faults(container.tensors)]
    return restored


def _companions(container: Container, faults: list[str]) -> tuple[DraftTable | None, Array | None]:
    """The draft table and the centroids, F16 [k, D], each if there is one; faults of their numbers go to `faults`."""
    if container.layout is None or container.faults or (facts := layout_facts(container.layout)).faults:
        return None, None
    draft = DraftTable({name: container.gather([name]) for name in DRAFT_DTYPES}) if facts.draft else None
    centroids = container.gather([CENTROIDS]) if facts.route else None
    if draft is not None:
        faults += draft_number_faults(draft.stored)
    if centroids is not None:
        faults += route_number_faults(centroids)
    return draft, centroids


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
    """Compare the E, the kinds, the draft table, the route and the digest of the manifest with the tensors.

    `text` is canonical JSON, so the digest member occurs once in a known form and can be cut out of it.
    """
    facts = layout_facts(layout)
    if facts.experts != {manifest.experts}:
        for name, entry in facts.vectors.items():
            if entry.shape[0] != manifest.experts:
                yield f"tensor {show(name)} has {entry.shape[0]} rows; expected E = {manifest.experts}"
    if facts.kinds != set(manifest.bounds):
        declared, present = show(sorted(manifest.bounds)), show(sorted(facts.kinds))
        yield f"manifest.bounds declares {declared} but the tensors are {present}; expected the same"
    if facts.draft != manifest.draft:
        yield f"manifest.draft is {show(manifest.draft)} but the tensors say {show(facts.draft)}; expected the same"
    if facts.route != (manifest.route is not None):
        yield f"manifest.route is {show(manifest.route)} but {CENTROIDS} is {'there' if facts.route else 'missing'}"
    if not facts.named:
        return  # names outside ASCII are already faults
    found = facts.digest(text.replace(f'"digest":"{manifest.digest}",', "").encode() + b"\n", body)
    if found != manifest.digest:
        yield (
            f"the digest is {found[:12]}, the manifest says {manifest.digest[:12]}: the file was changed or damaged "
            "after it was written; get it again"
        )


def _bound_faults(manifest: Manifest, peaks: Mapping[Kind, float]) -> Iterator[str]:
    for kind, peak in peaks.items():
        if peak > manifest.bounds[kind]:
            yield f"{kind} reaches {peak:g}; manifest.bounds.{kind} promises at most {manifest.bounds[kind]:g}"


def describe(skill: Skill) -> dict[str, Any]:
    """What ``lime-edge inspect`` reports about a skill, as JSON values."""
    manifest = skill.manifest
    facts = manifest.to_dict() | {"interface": manifest.interface.to_dict(), "prompt": manifest.prompt}
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
        "draft_bytes": skill.draft.size if skill.draft else 0,
        "route_shape": list(skill.route.centroids.shape) if skill.route else None,
    }
