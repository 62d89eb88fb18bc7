"""The local store of installed skills: files named by the SHA-256 of their bytes, names and versions in one index.

The store is crash-safe: a skill's file is flushed to disk before the index names it, and the index is replaced
atomically. Every change holds a lock, so a temporary file seen under the lock was left by a process that died.
Readers take no lock. transfer.py fetches and publishes skills. Normative page: docs/store.md.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from filelock import FileLock, Timeout

from lime_edge.common.files import TEMPORARY, make_folder, write_file
from lime_edge.common.paths import store_dir
from lime_edge.common.semver import precedence
from lime_edge.contract.names import SIGNATURE_SUFFIX, SKILL_SUFFIX
from lime_edge.errors import SkillVersionError, StoreError, UnknownSkillError
from lime_edge.skills.manifest import Manifest
from lime_edge.skills.package import decode_skill, read_package
from lime_edge.store.remote.resume import ResumableDownloads
from lime_edge.trust.signature_file import read_signature, signature_path

from .index import Index, InstalledSkill, InstalledVersion, read_index, write_index

_BLOB = re.compile(rf"[0-9a-f]{{64}}\.lime({re.escape(SIGNATURE_SUFFIX)})?")
_LOCK_TIMEOUT, _LOCK_POLL = 60.0, 0.01  # seconds to wait for the lock, and between two attempts


class TrustCheck(Protocol):
    """Decides whether a package may be used; implemented by `TrustPolicy`."""

    def admit(self, data: bytes, signature: bytes | None) -> object:
        """Raise SkillError unless these bytes may be used with this signature; called before they are parsed."""


@dataclass(frozen=True)
class Installed:
    """One version of a skill in the store.

    Attributes:
        path: Its file, named by its content.
        changed: Whether the operation changed the index.
        before: The version in use before the operation; None if there was none.
    """

    name: str
    version: str
    held: InstalledVersion
    path: Path
    changed: bool = False
    before: str | None = None


@dataclass(frozen=True)
class CleanupResult:
    """What `Store.gc` removed."""

    files: int
    size: int  # bytes


class Store:
    """Skills installed in a folder, which is created by the first change.

    Args:
        path: The folder; None means `common.paths.store_dir`, which reads $LIME_EDGE_STORE.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        self.path = store_dir() if path is None else Path(path)
        self.partials = ResumableDownloads(self.path / "partial", self.locked)
        self._blobs, self._index = self.path / "blobs", self.path / "index.json"

    def install(
        self,
        source: bytes | str | os.PathLike[str],
        *,
        signature: bytes | None = None,
        origin: str = "",
        trust: TrustCheck | None = None,
        allow_downgrade: bool = False,
    ) -> Installed:
        """Install a skill and use it from now on.

        Args:
            source: A .lime file, or the bytes of one.
            signature: The detached signature, which replaces an older one of the same bytes. None reads it from
                beside the file, if there is one.
            origin: The reference that the bytes came from.
            trust: Decides whether these bytes may be used; called before they are parsed.
            allow_downgrade: Also accept a version that is older than the one in use.

        Raises:
            SkillFormatError: The package is invalid.
            SkillVersionError: It is older than the version in use, or an installed version has other content.
            SkillError: The policy refuses it.
            StoreError: The store is unusable.
        """
        if not isinstance(source, bytes):
            signature = read_signature(signature_path(source)) if signature is None else signature
            source = read_package(source)
        manifest = _validate(source, signature, trust, origin)
        with self.locked():
            return self._put(manifest, source, signature, origin, allow_downgrade)

    def update(
        self,
        name: str,
        data: bytes,
        *,
        signature: bytes | None = None,
        origin: str = "",
        trust: TrustCheck | None = None,
        allow_downgrade: bool = False,
    ) -> Installed:
        """Like `install`, for an unattended update of the skill `name`.

        An installed version is not put into use again: an update must not undo a rollback.

        Returns:
            The version in use now.

        Raises:
            UnknownSkillError: The skill is not installed.
            SkillVersionError: The bytes hold another skill, or as in `install`.
            SkillError, StoreError: As in `install`.
        """
        manifest = _validate(data, signature, trust, origin)
        if manifest.name != name:
            raise SkillVersionError(
                f"{origin or 'the file'} holds skill {manifest.name!r}; expected {name!r}: nothing was changed"
            )
        with self.locked():
            entry = _find(self._read(), name)
            held = entry.versions.get(manifest.version)
            if held is not None and held.blob == _sha256(data) and manifest.version != entry.current:
                return self.held(entry)
            return self._put(manifest, data, signature, origin, allow_downgrade)

    def get(self, name: str) -> Path:
        """The file of ``NAME``, in the version in use, or of ``NAME@VERSION``.

        Raises:
            UnknownSkillError: It is not installed; names the installed skills or versions.
            StoreError: Its file is missing.
        """
        return self.info(name).path

    def info(self, name: str) -> Installed:
        """The installed version that ``NAME`` or ``NAME@VERSION`` means; raises the errors of `get`."""
        bare, at, version = name.partition("@")
        entry = self.entry(bare)
        while True:
            found = self.held(entry, version if at else entry.current)
            if found.path.is_file():
                return found
            again = self.entry(bare)  # another process may have changed it meanwhile
            if again == entry and not found.path.is_file():
                raise StoreError(f"the file of {bare} {found.version} is missing: {found.path}; install it again")
            entry = again

    def entry(self, name: str) -> InstalledSkill:
        """All versions of a skill and its history; raises UnknownSkillError if it is not installed."""
        return _find(self._read(), name)

    def list(self) -> tuple[InstalledSkill, ...]:
        """All installed skills, sorted by name."""
        index = self._read()
        return tuple(index[name] for name in sorted(index))

    def rollback(self, name: str, to: str | None = None, trust: TrustCheck | None = None) -> Installed:
        """Use the previous version again, or the installed version `to`.

        Raises:
            UnknownSkillError, SkillVersionError: There is no such version.
            SkillError, StoreError: Its file is damaged, or the policy refuses it; the current version stays in use.
        """
        with self.locked():
            index = self._read()
            entry = _find(index, name)
            if to is not None:
                entry.find(to)
            new = entry.back() if to is None else entry.use(to)
            self._check_blob(new, trust)
            self._write({**index, name: new})
            return self.held(new, changed=new != entry, before=entry.current)

    def remove(self, name: str) -> tuple[str, ...]:
        """Remove a skill, or one version ``NAME@VERSION``; `gc` frees the space.

        Returns:
            The removed versions.

        Raises:
            UnknownSkillError: It is not installed.
            SkillVersionError: The version is in use, and others are installed.
        """
        bare, at, version = name.partition("@")
        with self.locked():
            index = self._read()
            entry = _find(index, bare)
            del index[bare]
            if at and entry.find(version) and len(entry.versions) > 1:
                index[bare] = entry.without_version(version)
            self._write(index)
        return (version,) if at else tuple(sorted(entry.versions, key=precedence))

    def gc(self) -> CleanupResult:
        """Delete files that no version refers to: removed skills, and temporary files of processes that died."""
        removed = self.partials.clear()
        with self.locked():
            index = self._read()
            used = {held.blob for entry in index.values() for held in entry.versions.values()}
            for path in _garbage(self.path, self._blobs, used if self._index.is_file() else None):
                removed.append(path.stat().st_size)
                os.unlink(path)
        return CleanupResult(len(removed), sum(removed))

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the lock that every change of the store takes.

        Raises:
            StoreError: Another process holds the lock for too long, or the operating system reports an error.
        """
        try:
            make_folder(self._blobs)
            with FileLock(self.path / "lock").acquire(_LOCK_TIMEOUT, poll_interval=_LOCK_POLL):
                yield
        except Timeout as error:
            raise StoreError(f"{self.path} has been locked by another process for {_LOCK_TIMEOUT:g} s") from error
        except OSError as error:
            raise StoreError(f"the store {self.path} cannot be used: {error.strerror or error}") from error

    def _put(self, manifest: Manifest, data: bytes, signature: bytes | None, origin: str, down: bool) -> Installed:
        """Write first the files, then the index, which makes them visible; the caller holds the lock."""
        index = self._read()
        name, version, blob = manifest.name, manifest.version, _sha256(data)
        old = index.get(name)
        if old is not None:
            _check_version(old, version, blob, down)
        known = None if old is None else old.versions.get(version)
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        held = InstalledVersion(blob, manifest.digest, len(data), origin or (known.origin if known else ""), now)
        if known is not None:
            held = InstalledVersion(blob, known.digest, known.size, held.origin, known.installed)
        new = (
            InstalledSkill(name, version, (), {version: held})
            if old is None
            else old.with_version(version, held).use(version)
        )
        self._put_files(blob, data, signature)
        if new != old:
            self._write({**index, name: new})
        return self.held(new, changed=new != old, before=old.current if old else None)

    def _put_files(self, blob: str, data: bytes, signature: bytes | None) -> None:
        path = self._path(blob)
        files = {path: data} if signature is None else {signature_path(path): signature, path: data}
        for target, content in files.items():
            if not target.is_file() or target.read_bytes() != content:  # also repairs a damaged file
                write_file(target, content)

    def _check_blob(self, entry: InstalledSkill, trust: TrustCheck | None) -> None:
        """Check that the file of the version in use is unchanged and that the policy still accepts it."""
        path = self._path(entry.held.blob)
        data = read_package(path)
        if _sha256(data) != entry.held.blob:
            raise StoreError(f"the file of {entry.name} {entry.current} was changed: {path}; install it again")
        _validate(data, read_signature(signature_path(path)), trust, str(path))

    def held(
        self, entry: InstalledSkill, version: str | None = None, *, changed: bool = False, before: str | None = None
    ) -> Installed:
        """A version of an entry, by default the one in use, with the path of its file."""
        version = entry.current if version is None else version
        held = entry.find(version)
        return Installed(entry.name, version, held, self._path(held.blob), changed, before)

    def _path(self, blob: str) -> Path:
        return self._blobs / f"{blob}{SKILL_SUFFIX}"

    def _read(self) -> Index:
        try:
            return read_index(self._index.read_bytes())
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise StoreError(f"{self._index} cannot be read: {error.strerror or error}") from error

    def _write(self, index: Index) -> None:
        write_file(self._index, write_index(index))


def _validate(data: bytes, signature: bytes | None, trust: TrustCheck | None, origin: str) -> Manifest:
    if trust is not None:
        trust.admit(data, signature)
    return decode_skill(data, origin or "the package").manifest


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _find(index: Index, name: str) -> InstalledSkill:
    if name not in index:
        installed = ", ".join(map(repr, sorted(index))) or "none"
        raise UnknownSkillError(f"no skill named {name!r} is installed; installed are: {installed}")
    return index[name]


def _check_version(entry: InstalledSkill, version: str, blob: str, down: bool) -> None:
    """Refuse other content under an installed version, and a downgrade unless it is allowed."""
    same = entry.same_as(version)
    if same is not None and (same != version or entry.versions[same].blob != blob):
        raise SkillVersionError(
            f"version {version} of skill {entry.name!r} has other content than the version {same} that is installed",
            ["a version never changes: ask the author for a new one, or remove the one that is installed"],
        )
    if precedence(version) < precedence(entry.current) and not down:
        raise SkillVersionError(
            f"version {version} of skill {entry.name!r} is older than {entry.current}, which is in use",
            ["allow the downgrade (--allow-downgrade), or roll back to a version that is installed"],
        )


def _garbage(root: Path, blobs: Path, used: set[str] | None) -> Iterator[Path]:
    """Files of the store that no version refers to; only temporary files if there is no index (`used` is None)."""
    for path in [*root.iterdir(), *blobs.iterdir()]:
        temporary = path.name.startswith(".") and path.name.endswith(TEMPORARY)
        blob = path.parent == blobs and _BLOB.fullmatch(path.name)
        if temporary or (used is not None and blob and path.name[:64] not in used):
            yield path
