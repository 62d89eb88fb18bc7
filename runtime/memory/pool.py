"""Reuses the memory of finished requests, whose pages are already allocated.

A reused piece holds old data: do not read what you did not write.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .reserve import address_space

Bytes = npt.NDArray[np.uint8]

_IDLE = 2**26  # maximum bytes kept


class Pool:
    """A pool of idle pieces of memory. Safe to use from several threads, and from a garbage collector.

    There is no lock: the collector may give a piece back while the same thread takes one, and a forked child would
    inherit the lock as it was. Every step is one operation on a dictionary; a piece that is lost between two of them
    is simply freed.
    """

    def __init__(self) -> None:
        self._idle: dict[int, Bytes] = {}  # by identity, the oldest first

    def take(self, size: int) -> Bytes:
        """A piece of at least `size` bytes: the smallest idle one that is large enough, or a new one of zeros.

        Raises:
            MemoryError: There is not enough memory.
        """
        fitting = [piece for piece in list(self._idle.values()) if len(piece) >= size]
        for piece in sorted(fitting, key=len):
            if self._idle.pop(id(piece), None) is not None:  # otherwise another thread has taken it
                return piece
        # np.zeros asks for huge pages, which would take all of the memory at the first write.
        space = address_space(size)
        return np.zeros(size, np.uint8) if space is None else np.frombuffer(space, np.uint8)

    def give(self, piece: Bytes) -> None:
        """Return a piece; the oldest idle pieces are freed beyond the limit."""
        self._idle[id(piece)] = piece
        excess = self.idle - _IDLE
        for oldest in list(self._idle):
            if excess <= 0:
                return
            freed = self._idle.pop(oldest, None)
            excess -= 0 if freed is None else len(freed)

    @property
    def idle(self) -> int:
        """Bytes of all idle pieces."""
        return sum(map(len, list(self._idle.values())))
