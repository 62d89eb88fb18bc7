"""Atomic, durable file writes, and bounded reads of untrusted files.

A file is written to a temporary file in the same folder, flushed to disk and renamed over its target. The folder is
flushed next, so that a completed write survives a power cut. Every system call is a separate call to `os`: a test kills
the process at each of them.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

TEMPORARY = ".tmp"  # suffix of the temporary files; their names begin with a dot


def write_file(path: Path, data: bytes) -> None:
    """Create or replace a file atomically: a reader sees the old content or the new one, never a part.

    Raises:
        OSError: The file cannot be written; the old file is unchanged.
    """
    if not path.name:
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}{TEMPORARY}")
    try:
        _write(temporary, data)
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise
    sync_folder(path.parent)


def check_writable(folder: Path) -> None:
    """Check that files can be created in a folder, or, if it does not exist, that it can be created; leaves no trace.

    Raises:
        OSError: They cannot.
    """
    while not os.path.lexists(folder) and folder != folder.parent:
        with suppress(FileNotFoundError, NotADirectoryError):
            os.lstat(folder)  # raises what `lexists` hides, such as a name that is too long
        folder = folder.parent
    with tempfile.TemporaryFile(dir=folder):
        pass


def make_folder(path: Path) -> None:
    """Create a folder and its parents durably."""
    if path.is_dir():
        return
    make_folder(path.parent)
    with suppress(FileExistsError):
        os.mkdir(path)
    sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Flush the entries of a folder to disk, on systems that support it."""
    if sys.platform == "win32":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network drives do not support it
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
    """Read a small regular file.

    Args:
        path: The file.
        limit: Maximum size in bytes.
        follow: Whether the file may be a symbolic link.

    Raises:
        OSError: The file cannot be read.
        ValueError: The file is too large, is not a regular file, or is a link and `follow` is false.
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
    """A short reason for an error raised by `read_bounded`."""
    return str(getattr(error, "strerror", None) or error)
