"""The bank: every loaded skill's vectors as one row of one array that is fed to the graph.

Loading a skill writes one row, switching to it is a row number. A request pins the array and the
rows it began with; a row is written only while nobody uses it, so running requests never see a
change. Row 0 is all zeros: the base. Knows nothing of skills' names or files.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.floating]

_FIRST_CAPACITY = 4  # rows


class Bank:
    """Rows with reference counts. Safe to use from several threads.

    Args:
        row_size: P, floats in a row.
        dtype: float32 or float16, as the graph declares it.
    """

    def __init__(self, row_size: int, dtype: npt.DTypeLike) -> None:
        self._array: Array = np.zeros((_FIRST_CAPACITY, row_size), dtype)  # [N, P]
        self._references = [0] * _FIRST_CAPACITY
        self._references[0] = 1  # the base is never given away
        self._lock = threading.Lock()

    @property
    def array(self) -> Array:
        """The rows as they are now, [N, P]. Pin the rows to be read before taking it."""
        return self._array

    @property
    def in_use(self) -> int:
        """Rows that hold something, the base included."""
        return sum(count > 0 for count in self._references)

    def add(self, vectors: Array) -> int:
        """Write one row [P] and return its number, held once by the caller."""
        with self._lock:
            if 0 not in self._references:
                self._grow()
            row = self._references.index(0)
            self._array[row] = vectors
            self._references[row] = 1
            return row

    def hold(self, rows: Iterable[int]) -> Array:
        """Hold rows once more and return the array to read them from."""
        with self._lock:
            for row in rows:
                self._references[row] += 1
            return self._array

    def release(self, rows: Iterable[int]) -> None:
        """Give up one hold on each row; a row that nobody holds is free to be written."""
        with self._lock:
            for row in rows:
                self._references[row] -= 1

    def held(self, row: int) -> bool:
        return self._references[row] > 0

    def _grow(self) -> None:
        """Double the capacity in a new array; whoever pinned the old one goes on reading that."""
        capacity = len(self._array)
        self._array = np.concatenate([self._array, np.zeros_like(self._array)])
        self._references += [0] * capacity
