"""Keeps unfinished downloads, so that the next attempt can resume them.

Each download has a lock of its own. The lock is acquired and its file is deleted only under the lock of the store: no
process waits for a deleted lock, and a download whose lock is free was left by a process that died.
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

from lime_edge.common.files import make_folder, reason
from lime_edge.errors import StoreError

_PART, _TAG, _LOCK = ".part", ".tag", ".lock"
_LOCK_POLL = 0.1  # seconds between two attempts to take a lock


@dataclass(frozen=True)
class ResumableDownload:
    """The received bytes of one file, and the ETag of the version of the file that they belong to."""

    stem: Path

    @property
    def size(self) -> int:
        """The number of received bytes."""
        path = self.stem.with_suffix(_PART)
        return path.stat().st_size if path.is_file() else 0

    @property
    def tag(self) -> str:
        """The strong ETag of the file; empty if the download cannot be resumed."""
        path = self.stem.with_suffix(_TAG)
        return path.read_text("utf-8", errors="ignore") if path.is_file() and self.size else ""

    def begin(self, tag: str) -> None:
        """Start again, with a file of the ETag `tag`; empty if the server sent no strong ETag.

        Raises:
            StoreError: The file cannot be written.
        """
        with _storing(self.stem):
            self.discard()
            self.stem.with_suffix(_TAG).write_text(tag, "utf-8")

    def append(self, data: bytes) -> None:
        """Append received bytes.

        Raises:
            StoreError: The file cannot be written.
        """
        with _storing(self.stem), open(self.stem.with_suffix(_PART), "ab") as file:
            file.write(data)

    def read(self) -> bytes:
        """All received bytes."""
        return self.stem.with_suffix(_PART).read_bytes() if self.size else b""

    def discard(self) -> None:
        """Delete the received bytes and the ETag."""
        for suffix in (_PART, _TAG):  # in this order: bytes never exist without their ETag
            self.stem.with_suffix(suffix).unlink(missing_ok=True)


@contextmanager
def _storing(stem: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreError(f"the download cannot be kept in {stem.parent}: {reason(error)}") from error


class ResumableDownloads:
    """The unfinished downloads of a store.

    Args:
        folder: The folder of their files.
        locked: A context manager that holds the lock of the store.
    """

    def __init__(self, folder: Path, locked: Callable[[], AbstractContextManager[None]]) -> None:
        self._folder, self._locked = folder, locked

    @contextmanager
    def hold(self, url: str) -> Iterator[ResumableDownload]:
        """The unfinished download of `url`, for one process at a time; other processes wait."""
        stem = self._folder / hashlib.sha256(url.encode()).hexdigest()
        lock = FileLock(stem.with_suffix(_LOCK), timeout=0)
        while not self._take(lock):
            time.sleep(_LOCK_POLL)
        try:
            yield ResumableDownload(stem)
        finally:
            lock.release()

    def clear(self) -> list[int]:
        """Delete the downloads that no process works on; returns the sizes of the deleted files in bytes."""
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
