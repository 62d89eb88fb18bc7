"""The bank: one array that is fed to the graph, with the vectors of each loaded skill in one row.

Loading a skill writes one row; switching skills only changes a row number. A request pins the array and the rows that
it began with. Only unused rows are written, so a running request never sees a change. Row 0 is all zeros: the base.
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

_LEAST = 4  # initial rows if address space cannot be reserved


class Bank:
    """Rows with reference counts. Safe to use from several threads.

    Only rows in use take memory. The lowest free row is used first; the last release of a row frees its memory.

    Args:
        row_size: P, numbers in a row.
        dtype: float32 or float16: the type of the graph's input.
    """

    def __init__(self, row_size: int, dtype: npt.DTypeLike) -> None:
        self.dtype = np.dtype(dtype)
        self._reserve = Reserve(row_size, dtype, _LEAST)
        self._references = [1]  # row 0, the base, is never released
        self._free: list[int] = []  # a heap
        self._array = self._reserve.array[:1]
        self._lock = threading.Lock()

    @property
    def array(self) -> Array:
        """The current rows, [N, P]; a new object after every change. Hold the rows that you read."""
        return self._array

    @property
    def in_use(self) -> int:
        """Number of rows in use, including the base."""
        return sum(count > 0 for count in self._references)

    def add(self, vectors: Array) -> int:
        """Write vectors ([P] or fewer) to a free row and return its number; the caller holds it once.

        Raises:
            SkillError: There is not enough memory; nothing has changed.
        """
        vectors = vectors.astype(self.dtype, copy=False)  # slow, so before taking the lock
        with self._lock:
            row = heappop(self._free) if self._free else self._append()
            self._reserve.array[row, : len(vectors)] = vectors
            self._references[row] = 1
            self._array = self._reserve.array[: len(self._references)]
            return row

    def hold(self, rows: Iterable[int]) -> Array:
        """Add one hold to each row and return the array to read them from."""
        with self._lock:
            for row in rows:
                self._references[row] += 1
            return self._array

    def release(self, rows: Iterable[int]) -> None:
        """Remove one hold from each row; a row without holds becomes free."""
        with self._lock:
            for row in rows:
                self._references[row] -= 1
                if not self._references[row]:
                    self._reserve.give_back(row)
                    heappush(self._free, row)

    def held(self, row: int) -> bool:
        """Whether a row is in use."""
        return self._references[row] > 0

    def _append(self) -> int:
        """A new row after the last one."""
        row = len(self._references)
        if row == len(self._reserve.array):
            self._grow()
        self._references.append(0)
        return row

    def _grow(self) -> None:
        """Double the capacity in a new array; requests that pinned the old one keep reading it."""
        before = self._reserve.array
        try:
            reserve = Reserve(before.shape[1], self.dtype, 2 * len(before))
        except MemoryError as error:
            raise SkillError(
                f"no memory for more than {len(before) - 1} skills and blends: unload some skills"
            ) from error
        reserve.array[: len(before)] = before
        self._reserve = reserve
