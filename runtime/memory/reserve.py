"""Reserves address space for an array with far more rows than are used; only written rows take memory.

On 64-bit Linux and macOS, the system backs address space page by page, so the array can grow in place. If address space
or commitments are limited (Windows, `ulimit -v`, Linux without overcommit), the array is small instead, and its owner
must replace it with a larger one when it is full.
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
_ROWS = 2**16  # maximum number of rows
_GENERIC = ("x86_64", "aarch64", "riscv64")  # architectures on which Linux defines MAP_NORESERVE as 0x4000


class Reserve:
    """An array of rows, initially zeros.

    Args:
        row_size: Numbers in a row.
        dtype: Type of the numbers.
        least: Minimum number of rows, on any system.

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
        """Free the memory of an unused row, on Linux; pages that lie completely in it become zeros."""
        if self._space is None or sys.platform != "linux":
            return
        start = -(-row * self._row_bytes // mmap.PAGESIZE) * mmap.PAGESIZE
        stop = (row + 1) * self._row_bytes // mmap.PAGESIZE * mmap.PAGESIZE
        if start < stop:
            with suppress(OSError):  # failing to free memory is harmless
                self._space.madvise(mmap.MADV_DONTNEED, start, stop - start)


def address_space(size: int, promised: bool = True) -> mmap.mmap | None:
    """Anonymous memory, initially zeros, allocated page by page on write; None if the system refuses.

    Args:
        size: In bytes.
        promised: All of it will be used, so the system may refuse more than it can back.
    """
    if sys.platform == "win32":
        return None
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    if not promised and sys.platform == "linux" and platform.machine() in _GENERIC:
        flags |= 0x4000  # MAP_NORESERVE; mmap.MAP_NORESERVE needs Python 3.13
    try:
        return mmap.mmap(-1, size, flags=flags)
    except (OSError, OverflowError, ValueError):
        return None


def _rationed() -> bool:
    """Whether reserved address space counts against a limit."""
    if sys.platform == "win32" or sys.maxsize < 2**32:
        return True
    import resource  # does not exist on Windows

    if resource.getrlimit(resource.RLIMIT_AS)[0] != resource.RLIM_INFINITY:
        return True
    with suppress(OSError):
        return Path("/proc/sys/vm/overcommit_memory").read_text().strip() == "2"
    return False
