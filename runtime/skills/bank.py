"""The bank: every loaded skill's vectors as one row of one array that is fed to the graph.

Loading a skill writes one row, switching to it is a row number. A request pins the array and the
rows it began with; a row is written only while nobody uses it, so running requests never see a
change. Row 0 is all zeros: the base. Knows nothing of skills' names or files.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from heapq import heappop, heappush

import numpy as np
import numpy.typing as npt

from lime_edge.errors import SkillError
from lime_edge.runtime.memory.reserve import Reserve

Array = npt.NDArray[np.floating]

_LEAST = 4  # rows to begin with where they cannot be reserved


class Bank:
    """Rows with reference counts. Safe to use from several threads.

    Memory is taken for the rows in use, the lowest first; a row that nobody holds gives it back.

    Args:
        row_size: P, floats in a row.
        dtype: float32 or float16, as the graph declares it.
    """

    def __init__(self, row_size: int, dtype: npt.DTypeLike) -> None:
        self.dtype = np.dtype(dtype)
        self._reserve = Reserve(row_size, dtype, _LEAST)
        self._references = [1]  # the base is never given away
        self._free: list[int] = []  # a heap
        self._array = self._reserve.array[:1]
        self._lock = threading.Lock()

    @property
    def array(self) -> Array:
        """The rows as they are now, [N, P]; another object after every change. Pin the rows to be read before."""
        return self._array

    @property
    def in_use(self) -> int:
        """Rows that hold something, the base included."""
        return sum(count > 0 for count in self._references)

    def add(self, vectors: Array) -> int:
        """Write a row, or the beginning of one ([P] or fewer), and return its number, held once by the caller.

        Raises:
            SkillError: There is no memory for it; nothing has changed.
        """
        vectors = vectors.astype(self.dtype, copy=False)  # takes a while: not under the lock
        with self._lock:
            row = heappop(self._free) if self._free else self._append()
            self._reserve.array[row, : len(vectors)] = vectors
            self._references[row] = 1
            self._array = self._reserve.array[: len(self._references)]
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
                if not self._references[row]:
                    self._reserve.give_back(row)
                    heappush(self._free, row)

    def held(self, row: int) -> bool:
        return self._references[row] > 0

    def _append(self) -> int:
        """A row that never was in use."""
        row = len(self._references)
        if row == len(self._reserve.array):
            self._grow()
        self._references.append(0)
        return row

    def _grow(self) -> None:
        """Double the capacity in a new array; whoever pinned the old one goes on reading that."""
        before = self._reserve.array
        try:
            reserve = Reserve(before.shape[1], self.dtype, 2 * len(before))
        except MemoryError as error:
            raise SkillError(f"no memory for more than {len(before) - 1} skills and blends: unload some") from error
        reserve.array[: len(before)] = before
        self._reserve = reserve
