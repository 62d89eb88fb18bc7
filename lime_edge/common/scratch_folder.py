"""Folders in which a directory is prepared beside its final place, and which a killed process does not leave forever.

A lock file beside each folder is held while it is in use. The system releases the lock when the process dies, so
whoever gets it may delete the folder.
"""

from __future__ import annotations

import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

_LOCK = ".lock"
_OLD = "old"  # in the scratch folder: the directory that is being replaced


@contextmanager
def scratch_folder(target: Path) -> Iterator[Path]:
    """A folder on the same file system as `target`, deleted at the end.

    Folders for the same target that killed processes left are deleted first. Those in use by other processes stay.

    Raises:
        OSError: The folder of `target` cannot be written.
    """
    _collect(target)
    folder = target.parent / f".{target.name}-{secrets.token_hex(4)}"
    lock = folder.with_name(folder.name + _LOCK)
    try:
        with FileLock(lock):
            folder.mkdir()
            try:
                yield folder
            finally:
                shutil.rmtree(folder, ignore_errors=True)
    finally:
        lock.unlink(missing_ok=True)  # after its release: some systems cannot delete an open file


def put_in_place(made: Path, target: Path, scratch: Path) -> None:
    """Rename a complete directory to `target`; a directory that it replaces is deleted with the scratch folder.

    If this fails, or the process is killed between the two renames, the old directory comes back.

    Raises:
        OSError: A rename failed.
    """
    old = scratch / _OLD
    if target.exists():
        target.rename(old)
    try:
        made.rename(target)
    except OSError:
        if old.exists():
            old.rename(target)
        raise


def _collect(target: Path) -> None:
    """Delete the scratch folders of processes that died."""
    name = re.compile(rf"\.{re.escape(target.name)}-[0-9a-f]{{8}}{re.escape(_LOCK)}")
    for lock in [path for path in target.parent.iterdir() if name.fullmatch(path.name)]:
        folder = lock.with_suffix("")
        with suppress(Timeout, OSError):  # in use, or another user's
            with FileLock(lock, timeout=0):
                if (folder / _OLD).exists() and not target.exists():
                    (folder / _OLD).rename(target)
                if folder.exists():
                    shutil.rmtree(folder)
            lock.unlink(missing_ok=True)
