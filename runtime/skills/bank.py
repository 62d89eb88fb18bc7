"""The bank: one array that is fed to the graph, with the vectors of each loaded skill in one row.

Loading a skill writes one row; switching skills only changes a row number. A request pins the array and the rows that
it began with. Only unused rows are written, so a running request never sees a change. Row 0 is all zeros: the base.
"""

from __future__ import annotations

import threading
import weakref
from collections import deque
from collections.abc import Iterable
from typing import Self

import numpy as np
import numpy.typing as npt

from lime_edge.errors import SkillError
from lime_edge.runtime.memory.reserve import Reserve

Array = npt.NDArray[np.floating]

_LEAST = 4  # initial rows if address space cannot be reserved


class _Claim(weakref.ref["Hold"]):
    """Identifies a `Hold` in the sets of the bank, even after the hold was garbage-collected."""

    __slots__ = ("rows",)
    __hash__ = object.__hash__  # that of the hold is lost with it

    rows: list[int]

    def __eq__(self, other: object) -> bool:
        return self is other


class Hold:
    """The rows that one owner keeps in use, until it is released or garbage-collected.

    An interrupt between any two lines loses no row: a row is claimed by one operation on a set, releasing is
    idempotent, and a hold that nobody refers to any more is released by the next use of the bank.
    """

    def __init__(self, bank: Bank) -> None:
        self._bank = bank
        # A callback in C: no code of ours runs in the garbage collector, which may interrupt us inside a lock.
        self._claim = _Claim(self, bank._abandoned.append)
        self._claim.rows = []

    def add(self, vectors: Array) -> int:
        """Write vectors ([P] or fewer) to a free row, keep it, and return its number.

        Raises:
            SkillError: There is not enough memory; nothing has changed.
        """
        return self._bank._add(vectors, self._claim)

    def keep(self, rows: Iterable[int]) -> Array:
        """Keep rows that are in use, and return the array to read them from."""
        return self._bank._keep(list(rows), self._claim)

    def keep_written(self, row: int, stamp: int) -> bool:
        """Keep a row if it is in use and was not written again; returns whether it was kept."""
        return self._bank._keep_written(row, stamp, self._claim)

    def release(self) -> None:
        """Let go of all rows; a row that nobody keeps becomes free. May be called again; keep nothing afterwards."""
        self._bank._abandoned.append(self._claim)
        self._bank._settle()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.release()


class Bank:
    """Rows and who keeps them in use. Safe to use from several threads.

    Only rows in use take memory. The lowest free row is used first; its memory is freed when nobody keeps it.

    Args:
        row_size: P, numbers in a row.
        dtype: float32 or float16: the type of the graph's input.
    """

    def __init__(self, row_size: int, dtype: npt.DTypeLike) -> None:
        self.dtype = np.dtype(dtype)
        self._reserve = Reserve(row_size, dtype, _LEAST)
        self._claims: list[set[_Claim]] = [set()]  # of each row; row 0, the base, is always in use
        self._written = [1]  # how often each row was written
        self._abandoned: deque[_Claim] = deque()  # claims of holds that were released or garbage-collected
        self._array = self._reserve.array[:1]
        self._lock = threading.Lock()

    def hold(self) -> Hold:
        """A hold without rows."""
        return Hold(self)

    @property
    def array(self) -> Array:
        """The current rows, [N, P]; a new object after every change. Keep the rows that you read."""
        return self._array

    @property
    def in_use(self) -> int:
        """Number of rows in use, including the base."""
        with self._lock:
            self._sweep()
            return 1 + sum(map(bool, self._claims))

    def stamp(self, row: int) -> int:
        """A number that changes when the row is written again; 0 if it is not in use."""
        return self._written[row] if row == 0 or self._claims[row] else 0

    def _add(self, vectors: Array, claim: _Claim) -> int:
        vectors = vectors.astype(self.dtype, copy=False)  # slow, so before taking the lock
        with self._lock:
            self._sweep()
            row = next((row for row, claims in enumerate(self._claims) if row and not claims), len(self._claims))
            if row == len(self._reserve.array):
                self._grow()
            if row == len(self._claims):
                self._written.append(0)
                self._claims.append(set())
            self._reserve.array[row, : len(vectors)] = vectors
            self._written[row] += 1
            self._claim(row, claim)
            self._array = self._reserve.array[: len(self._claims)]
            return row

    def _keep(self, rows: list[int], claim: _Claim) -> Array:
        with self._lock:
            for row in rows:
                if row:
                    self._claim(row, claim)
            return self._array

    def _keep_written(self, row: int, stamp: int, claim: _Claim) -> bool:
        with self._lock:
            same = self.stamp(row) == stamp
            if same:
                self._claim(row, claim)
            return same

    def _claim(self, row: int, claim: _Claim) -> None:
        claim.rows.append(row)  # first: what is not in the list is not released
        self._claims[row].add(claim)

    def _settle(self) -> None:
        """Free what was released, unless a lock is held: then the next use of the bank does it.

        The lock may be this thread's own: a garbage collector or a signal interrupted it, or the process was forked.
        """
        if not self._lock.locked():
            with self._lock:
                self._sweep()

    def _drop(self, claim: _Claim) -> None:
        for row in claim.rows:
            claims = self._claims[row]
            if claim in claims:
                claims.remove(claim)
                if not claims:
                    self._reserve.give_back(row)

    def _sweep(self) -> None:
        """Release the holds that were released or garbage-collected."""
        while self._abandoned:
            self._drop(self._abandoned[0])
            self._abandoned.popleft()

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
