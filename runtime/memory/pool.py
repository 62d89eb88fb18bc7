"""Reuses the memory of finished requests, whose pages are already allocated.

A reused piece holds old data: do not read what you did not write.
"""

from __future__ import annotations

import threading

import numpy as np
import numpy.typing as npt

from .reserve import address_space

Bytes = npt.NDArray[np.uint8]

_IDLE = 2**26  # maximum bytes kept


class Pool:
    """A pool of idle pieces of memory. Safe to use from several threads."""

    def __init__(self) -> None:
        self._idle: list[Bytes] = []
        self._lock = threading.Lock()

    def take(self, size: int) -> Bytes:
        """A piece of at least `size` bytes: the smallest idle one that is large enough, or a new one of zeros.

        Raises:
            MemoryError: There is not enough memory.
        """
        with self._lock:
            fitting = [number for number, piece in enumerate(self._idle) if len(piece) >= size]
            if fitting:
                return self._idle.pop(min(fitting, key=lambda number: len(self._idle[number])))
        # np.zeros asks for huge pages, which would take all of the memory at the first write.
        space = address_space(size)
        return np.zeros(size, np.uint8) if space is None else np.frombuffer(space, np.uint8)

    def give(self, piece: Bytes) -> None:
        """Return a piece; the oldest idle pieces are freed beyond the limit."""
        with self._lock:
            self._idle.append(piece)
            while sum(len(idle) for idle in self._idle) > _IDLE:
                self._idle.pop(0)
