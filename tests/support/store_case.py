"""What the tests of the store share: packages of any name and version, and what must hold of a store at any moment."""

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
from tests.support.malformed import manifest, vectors

Promise = tuple[str, str, str]  # name, version, SHA-256 of the file: somebody was told that it is installed


@cache
def package(name: str = "tiny", version: str = "1.0.0", **changes: Any) -> bytes:
    """The bytes of a sound package."""
    with tempfile.TemporaryDirectory() as work:
        path = Path(work) / "made.lime"
        return write_skill(path, manifest(name=name, version=version, **changes), vectors()).path.read_bytes()


_TRIES = 20  # others may remove and install the same skill between two looks, but not every time


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def state(path: Path) -> Index:
    """Names and versions."""
    return {entry.name: entry for entry in Store(path).list()}


def check(path: Path, promises: set[Promise] = frozenset()) -> None:  # type: ignore[assignment]
    """The store opens; everything it names is whole; everything promised is named. Others may be at work meanwhile.

    Raises:
        AssertionError: Says what does not hold.
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
            continue  # others collect it
        assert sha256(data) == blob.stem, f"{blob} is half-written"


def litter(path: Path) -> list[str]:
    """Files that a quiet store has no use for."""
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
            left = {entry.name: entry for entry in store.list()}  # was it removed since?
            if name not in left or version not in left[name].versions:
                return
    else:
        raise AssertionError(f"{name} {version} is named, but not there")
    assert sha256(data) == blob, f"{name} {version} is damaged"
    found = decode_skill(data, path).manifest
    assert (found.name, found.version) == (name, version)
    beside = signature_path(path)
    if beside.is_file():
        assert beside.read_bytes() == signature_of(data), f"the signature of {name} {version} is damaged"


def signature_of(data: bytes) -> bytes:
    """What stands for a signature in these tests; the store does not look into it."""
    return b"signed " + sha256(data).encode() * 100
