"""Memory of requests that are over, kept for the next: its pages are there already.

Knows nothing of what is in it; whoever takes a piece must not read what it did not write.
"""

from __future__ import annotations

import threading

import numpy as np
import numpy.typing as npt

from .reserve import address_space

Bytes = npt.NDArray[np.uint8]

_IDLE = 2**26  # bytes kept at most


class Pool:
    """Idle pieces of memory. Safe to use from several threads."""

    def __init__(self) -> None:
        self._idle: list[Bytes] = []
        self._lock = threading.Lock()

    def take(self, size: int) -> Bytes:
        """A piece of at least `size` bytes: the smallest idle one that is large enough, or new zeros.

        Raises:
            MemoryError: There is no such memory.
        """
        with self._lock:
            fitting = [number for number, piece in enumerate(self._idle) if len(piece) >= size]
            if fitting:
                return self._idle.pop(min(fitting, key=lambda number: len(self._idle[number])))
        space = address_space(
            size
        )  # not numpy's own: that asks for huge pages, which take all memory at the first touch
        return np.zeros(size, np.uint8) if space is None else np.frombuffer(space, np.uint8)

    def give(self, piece: Bytes) -> None:
        """Give a piece back; the oldest ones are let go when there are too many."""
        with self._lock:
            self._idle.append(piece)
            while sum(len(idle) for idle in self._idle) > _IDLE:
                self._idle.pop(0)
