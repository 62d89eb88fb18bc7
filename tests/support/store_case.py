"""Packages of any name and version for the tests of the store, and the invariants of a store."""

from __future__ import annotations

import hashlib
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from lime_edge.errors import StoreError, UnknownSkillError
from lime_edge.skills.package import decode_skill, write_skill
from lime_edge.store.index import Index
from lime_edge.store.store import Store
from lime_edge.trust.signature_file import signature_path
from tests.support.faults.malformed import manifest, vectors

Promise = tuple[str, str, str]  # (name, version, SHA-256 of the file) that an operation reported as installed
_TRIES = 20  # another process may replace the skill between two reads, but not every time


@cache
def package(name: str = "tiny", version: str = "1.0.0", **changes: Any) -> bytes:
    """The bytes of a valid package."""
    with tempfile.TemporaryDirectory() as work:
        path = Path(work) / "made.lime"
        return write_skill(path, manifest(name=name, version=version, **changes), vectors()).path.read_bytes()


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def state(path: Path) -> Index:
    """The index entries by name."""
    return {entry.name: entry for entry in Store(path).list()}


def check(path: Path, promises: set[Promise] = frozenset()) -> None:  # type: ignore[assignment]
    """Check that the store opens, its files are intact and all `promises` are kept; safe while other processes write.

    Raises:
        AssertionError: An invariant is violated.
    """
    store = Store(path)
    entries = store.list()
    for entry in entries:
        for version, held in entry.versions.items():
            _check_file(store, entry.name, version, held.blob)
    named = {(entry.name, version, held.blob) for entry in entries for version, held in entry.versions.items()}
    assert promises <= named, f"lost: {promises - named}"
    for blob in (path / "blobs").glob("*.lime") if path.is_dir() else ():
        try:
            data = blob.read_bytes()
        except FileNotFoundError:
            continue  # another process collected it
        assert sha256(data) == blob.stem, f"{blob} is half-written"


def litter(path: Path) -> list[str]:
    """Names of the files that an idle store does not need."""
    named = {held.blob for entry in Store(path).list() for held in entry.versions.values()}
    files = [file for file in path.rglob("*") if file.is_file() and file.name not in ("lock", "index.json")]
    return [file.name for file in files if file.parent.name != "blobs" or file.name[:64] not in named]


def _check_file(store: Store, name: str, version: str, blob: str) -> None:
    for _ in range(_TRIES):
        try:
            path = store.get(f"{name}@{version}")
            data = path.read_bytes()
            break
        except (UnknownSkillError, StoreError, FileNotFoundError):
            left = {entry.name: entry for entry in store.list()}  # it may have been removed meanwhile
            if name not in left or version not in left[name].versions:
                return
    else:
        raise AssertionError(f"{name} {version} is in the index, but its file is missing")
    assert sha256(data) == blob, f"{name} {version} is damaged"
    found = decode_skill(data, path).manifest
    assert (found.name, found.version) == (name, version)
    beside = signature_path(path)
    if beside.is_file():
        assert beside.read_bytes() == signature_of(data), f"the signature of {name} {version} is damaged"


def signature_of(data: bytes) -> bytes:
    """A fake signature; the store does not verify signatures itself."""
    return b"signed " + sha256(data).encode() * 100


def big() -> bytes:
    """A package larger than several network packets."""
    return package("big", description="x" * 3500, backbone_name="y" * 150)


def versions(store: Store, name: str = "tiny") -> tuple[str, tuple[str, ...], list[str]]:
    """The version in use, the history, and all installed versions."""
    entry = store.entry(name)
    return entry.current, entry.history, sorted(entry.versions)
