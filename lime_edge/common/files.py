"""Files that are there whole or not at all, whatever dies when. Knows nothing of what they hold.

A file is written beside its target, flushed to the disk and moved over it; then the folder is flushed, so that what
a caller was told is there survives a power cut. Every call to the system goes through `os`, one by one: a test lets
the process die at each of them.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
import sys
from contextlib import suppress
from pathlib import Path

TEMPORARY = ".tmp"  # ends the names of files that are being written; they begin with a dot


def write_file(path: Path, data: bytes) -> None:
    """Make or replace a file: a reader sees the old one or the new one, never half.

    Raises:
        OSError: It cannot be written; the old file is as it was.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}{TEMPORARY}")
    try:
        _write(temporary, data)
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise
    sync_folder(path.parent)


def make_folder(path: Path) -> None:
    """Make a folder and those above it, to stay."""
    if path.is_dir():
        return
    make_folder(path.parent)
    with suppress(FileExistsError):
        os.mkdir(path)
    sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Flush the names in a folder to the disk, where the system knows such a thing."""
    if sys.platform == "win32":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # what some network drives say
            raise
    finally:
        os.close(descriptor)


def _write(path: Path, data: bytes) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    descriptor = os.open(path, flags, 0o666)
    try:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_bounded(path: str | os.PathLike[str], limit: int, follow: bool = True) -> bytes:
    """The whole of a small regular file, once.

    Args:
        path: The file.
        limit: Bytes it may have.
        follow: Whether it may be a symbolic link.

    Raises:
        OSError: It cannot be read.
        ValueError: It is too large, not a regular file, or a link.
    """
    if not follow and Path(path).is_symlink():
        raise ValueError("it is a symbolic link; expected the file itself")
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)  # a pipe must not block
    descriptor = os.open(path, flags if follow else flags | getattr(os, "O_NOFOLLOW", 0))
    with open(descriptor, "rb") as file:
        info = os.fstat(descriptor)
        if not stat.S_ISREG(info.st_mode):
            raise ValueError("it is not a regular file")
        data = file.read(limit + 1)
    if len(data) > limit:
        raise ValueError(f"it has more than {limit} bytes")
    return data


def reason(error: Exception) -> str:
    """What `read_bounded` raised, in a few words."""
    return str(getattr(error, "strerror", None) or error)
