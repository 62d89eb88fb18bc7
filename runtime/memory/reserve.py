"""Zeros for far more rows than will be used: memory is taken where rows are written, and given back row by row.

One large piece of address space where the system backs it page by page (64-bit Linux and macOS), so that an array can
fill up without ever being moved. Where address space or commitments are rationed (Windows, `ulimit -v`, Linux that
forbids overcommitting) it is a small array instead, and its owner has to make a larger one. Knows nothing of skills.
"""

from __future__ import annotations

import mmap
import platform
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.floating]

_SPACE = 2**36  # bytes of address space
_ROWS = 2**16  # rows in it at most
_GENERIC = ("x86_64", "aarch64", "riscv64")  # machines on which Linux's MAP_NORESERVE is 0x4000


class Reserve:
    """Rows of zeros.

    Args:
        row_size: Numbers in a row.
        dtype: Their type.
        least: Rows wanted, whatever the system.

    Attributes:
        array: [capacity, row_size], writable; capacity is at least `least`.
    """

    def __init__(self, row_size: int, dtype: npt.DTypeLike, least: int) -> None:
        self._row_bytes = row_size * np.dtype(dtype).itemsize
        rows = max(least, min(_ROWS, _SPACE // self._row_bytes))
        self._space = None if _rationed() else address_space(rows * self._row_bytes, promised=False)
        if self._space is None:
            self.array: Array = np.zeros((least, row_size), dtype)
        else:
            self.array = np.frombuffer(self._space, dtype).reshape(rows, row_size)

    def give_back(self, row: int) -> None:
        """Return the memory of a row that nobody reads any more; its whole pages are zeros again, on Linux."""
        if self._space is None or sys.platform != "linux":
            return
        start = -(-row * self._row_bytes // mmap.PAGESIZE) * mmap.PAGESIZE
        stop = (row + 1) * self._row_bytes // mmap.PAGESIZE * mmap.PAGESIZE
        if start < stop:
            with suppress(OSError):  # it is only thrift
                self._space.madvise(mmap.MADV_DONTNEED, start, stop - start)


def address_space(size: int, promised: bool = True) -> mmap.mmap | None:
    """Zeros that take memory page by page as they are written; None where they cannot be had.

    Args:
        size: In bytes.
        promised: All of it will be used: the system may refuse what it could not back.
    """
    if sys.platform == "win32":
        return None
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    if not promised and sys.platform == "linux" and platform.machine() in _GENERIC:
        flags |= 0x4000  # MAP_NORESERVE, which Python names from 3.13 on
    try:
        return mmap.mmap(-1, size, flags=flags)
    except (OSError, OverflowError, ValueError):
        return None


def _rationed() -> bool:
    """Whether unused address space would be taken from somebody."""
    if sys.platform == "win32" or sys.maxsize < 2**32:
        return True
    import resource  # not on Windows

    if resource.getrlimit(resource.RLIMIT_AS)[0] != resource.RLIM_INFINITY:
        return True
    with suppress(OSError):
        return Path("/proc/sys/vm/overcommit_memory").read_text().strip() == "2"
    return False
