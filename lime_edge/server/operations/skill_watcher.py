"""Keeps the loaded skills equal to those in folders and in the store, and to what the trust policy admits.

A file that cannot be loaded changes nothing. Why it cannot is kept until it can, or is gone.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from lime_edge.contract.names import SIGNATURE_SUFFIX
from lime_edge.errors import LimeError, SkillError
from lime_edge.runtime import Runtime
from lime_edge.store.lookup import skill_files
from lime_edge.store.store import Store
from lime_edge.trust.policy import read_trusted_skill

from .request_log import event

Stamp = tuple[object, ...]  # differs if a file may have other content


class Source(Protocol):
    """Where skills come from."""

    @property
    def path(self) -> Path: ...
    @property
    def may_go_back(self) -> bool:
        """To an older version, although a trust policy is in force."""

    def files(self) -> list[Path]:
        """The packages that are there now.

        Raises:
            LimeError, OSError: They cannot be listed; those that were there stay.
        """


@dataclass(frozen=True)
class FolderSource:
    """The packages in a folder, or in its `skills/`."""

    path: Path
    may_go_back: bool = False  # whoever can write here must not be able to bring back a skill with known faults

    def files(self) -> list[Path]:
        """The .lime files."""
        return skill_files(self.path)


@dataclass(frozen=True)
class StoreSource:
    """The versions in use of the installed skills."""

    store: Store
    may_go_back: bool = True  # a rollback is a decision of the operator

    @property
    def path(self) -> Path:
        """The folder of the store."""
        return self.store.path

    def files(self) -> list[Path]:
        """The files of the versions in use."""
        return [self.store.held(entry).path for entry in self.store.list()]


class SkillWatcher:
    """Loads and unloads skills of one runtime; `poll` once, or `start` a thread.

    Args:
        runtime: Whose skills they are.
        sources: Where to look; the first one wins if two hold a skill of the same name.
        policy: The file of the trust policy, which is watched, too.
        reserved: Whether a name may not be used.
        seconds: Between two looks.
    """

    def __init__(
        self,
        runtime: Runtime,
        sources: Sequence[Source],
        policy: Path | None = None,
        reserved: Callable[[str], bool] = lambda name: False,
        seconds: float = 1.0,
    ) -> None:
        self._runtime, self._sources, self._reserved = runtime, sources, reserved
        self._policy, self._policy_stamp = policy, None if policy is None else _stamp(policy)
        self._seen: dict[Path, Stamp] = {}
        self._owners: dict[str, Path] = {}  # skill -> the file that it was loaded from, by this watcher
        self._faults: dict[Path, str] = {}
        self._seconds = seconds
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def diagnostics(self) -> list[str]:
        """Why skills that were found are not loaded, or not in their newest version; never a path."""
        return [f"{path.name}: {fault}" for path, fault in sorted(self._faults.items())]

    def start(self) -> None:
        """Look again and again, in a thread of its own, until `stop`."""
        self._thread = threading.Thread(target=self._run, name="lime-skill-watcher", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(self._seconds):
            try:
                self.poll()
            except Exception as error:  # noqa: BLE001  (the next look may succeed; the skills stay as they are)
                event("watching skills failed", error=error)

    def poll(self) -> None:
        """Look once."""
        self._read_policy()
        found: dict[Path, Source] = {}
        for source in self._sources:
            try:
                found |= {path: source for path in source.files() if path not in found}
            except (LimeError, OSError) as error:
                self._note(source.path, error)
                return  # without knowing all files, none counts as removed
            self._faults.pop(source.path, None)
        for path, source in found.items():
            stamp = _stamp(path)
            if stamp != self._seen.get(path):
                self._load(path, source, found)
                self._seen[path] = stamp
        for path in [path for path in self._seen if path not in found]:
            self._forget(path)

    def _load(self, path: Path, source: Source, found: Mapping[Path, Source]) -> None:
        try:
            package = read_trusted_skill(path, self._runtime.trust).skill
            name, digest = package.manifest.name, package.manifest.digest
            if self._reserved(name):
                raise SkillError(f"the name {name!r} is reserved by the server; give the skill another name")
            loaded = {info.name: info for info in self._runtime.skills()}.get(name)
            owner = self._owners.get(name)
            if loaded is not None and owner != path and (owner is None or owner in found):
                raise SkillError(f"another skill named {name!r} is loaded; only the first is used")
            if loaded is None or loaded.digest != digest or loaded.path != path:
                before = 0 if loaded is None else loaded.generation
                info = self._runtime.load_skill(
                    path, replace=True, allow_downgrade=source.may_go_back, expected_generation=before
                )
                event("skill loaded", skill=name, version=info.version, digest=digest, generation=info.generation)
            self._owners[name] = path
            self._faults.pop(path, None)
            self._drop([other for other, file in self._owners.items() if file == path and other != name])
        except LimeError as error:
            self._note(path, error)

    def _forget(self, path: Path) -> None:
        """Unload the skill of a file that is gone."""
        del self._seen[path]
        self._faults.pop(path, None)
        self._drop([name for name, owner in self._owners.items() if owner == path])

    def _drop(self, names: Sequence[str]) -> None:
        for name in names:
            del self._owners[name]
            try:
                self._runtime.unload_skill(name)
            except LimeError as error:  # already unloaded, by a policy or a client
                event("skill not unloaded", skill=name, reason=str(error))
            else:
                event("skill unloaded", skill=name)

    def _read_policy(self) -> None:
        if self._policy is None or (stamp := _stamp(self._policy)) == self._policy_stamp:
            return
        self._policy_stamp = stamp
        try:
            refused = self._runtime.use_policy(self._policy)
        except LimeError as error:
            self._note(self._policy, error)  # the old policy stays in force
            return
        self._faults.pop(self._policy, None)
        event("trust policy changed", refused=sorted(refused))
        for name in refused:
            self._owners.pop(name, None)
        self._seen = dict.fromkeys(self._seen, ())  # what was refused may be accepted now, and the reverse

    def _note(self, path: Path, error: Exception) -> None:
        text = str(error).replace(f"{path}", path.name).replace(f"{path.parent}{os.sep}", "")
        if self._faults.get(path) != text:
            event("skill refused", file=path.name, reason=text)
        self._faults[path] = text


def _stamp(path: Path) -> Stamp:
    return tuple(_facts(path)) + tuple(_facts(path.with_name(path.name + SIGNATURE_SUFFIX)))


def _facts(path: Path) -> Iterator[object]:
    try:
        info = os.stat(path)
    except OSError:
        yield None
    else:
        yield from (info.st_size, info.st_mtime_ns, info.st_ino, info.st_ctime_ns)
