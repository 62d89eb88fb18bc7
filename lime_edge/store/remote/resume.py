"""Unfinished downloads, kept for the next try. Knows nothing of servers.

A download holds a lock of its own, which is only ever taken, and removed, under the lock of the store: so nobody waits
for a lock that is gone, and what can be locked while one holds the store's lock was left by the dead.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from lime_edge.common.files import make_folder

_PART, _TAG, _LOCK = ".part", ".tag", ".lock"
_PAUSE = 0.1  # seconds between looks at a lock


@dataclass(frozen=True)
class ResumableDownload:
    """The bytes of one file so far, and the tag that says of which state of the file they are."""

    stem: Path

    @property
    def size(self) -> int:
        """Bytes so far."""
        path = self.stem.with_suffix(_PART)
        return path.stat().st_size if path.is_file() else 0

    @property
    def tag(self) -> str:
        """What the server called this state of the file; empty if nothing can be added to it."""
        path = self.stem.with_suffix(_TAG)
        return path.read_text("utf-8") if path.is_file() and self.size else ""

    def begin(self, tag: str) -> None:
        """Forget what there is and expect the state `tag`."""
        self.discard()
        self.stem.with_suffix(_TAG).write_text(tag, "utf-8")

    def append(self, data: bytes) -> None:
        """Add the next bytes."""
        with open(self.stem.with_suffix(_PART), "ab") as file:
            file.write(data)

    def read(self) -> bytes:
        """All bytes so far."""
        return self.stem.with_suffix(_PART).read_bytes() if self.size else b""

    def discard(self) -> None:
        """Forget everything."""
        for suffix in (_PART, _TAG):  # in this order: bytes are never without their tag
            self.stem.with_suffix(suffix).unlink(missing_ok=True)


class ResumableDownloads:
    """The unfinished downloads of a store.

    Args:
        folder: Where they lie.
        locked: Takes the lock of the store.
    """

    def __init__(self, folder: Path, locked: Callable[[], AbstractContextManager[None]]) -> None:
        self._folder, self._locked = folder, locked

    @contextmanager
    def hold(self, url: str) -> Iterator[ResumableDownload]:
        """What there is of `url`, for one process at a time; others wait."""
        stem = self._folder / hashlib.sha256(url.encode()).hexdigest()
        lock = FileLock(stem.with_suffix(_LOCK), timeout=0)
        while not self._take(lock):
            time.sleep(_PAUSE)
        try:
            yield ResumableDownload(stem)
        finally:
            lock.release()

    def clear(self) -> list[int]:
        """Remove the downloads that nobody works on; the sizes of the files that are gone."""
        sizes = []
        with self._locked():
            for stem in {path.stem for path in self._folder.glob("*.*")}:
                try:
                    FileLock(self._folder / f"{stem}{_LOCK}", timeout=0).acquire().lock.release()
                except Timeout:
                    continue
                for path in self._folder.glob(f"{stem}.*"):
                    sizes.append(path.stat().st_size)
                    os.unlink(path)
        return sizes

    def _take(self, lock: FileLock) -> bool:
        with self._locked():
            make_folder(self._folder)
            try:
                lock.acquire()
            except Timeout:
                return False
            return True
