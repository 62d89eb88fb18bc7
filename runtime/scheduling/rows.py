"""The rows of a shared KV cache, and whose they are.

The cache is as large as the jobs in it need: it grows when a job joins, and its memory goes back to the pool when the
last one leaves. A change is made before it is seen: an interrupt leaves every row that others use as it was.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence

import numpy as np

from lime_edge.runtime.decoding.kv_cache import Cache
from lime_edge.runtime.model.session import Graph

from .job import Job
from .scheduler_settings import SchedulerSettings

_HOLE = 3  # steps that a free row among others is kept for a next job; then the last row moves there


class Rows:
    """Rows and their jobs, which are referred to weakly.

    Args:
        graph: The graph.
        settings: Limits on rows and memory.

    Attributes:
        cache: The shared cache; None while no row is in use.
    """

    def __init__(self, graph: Graph, settings: SchedulerSettings) -> None:
        directory, item = graph.directory, np.dtype(graph.cache_dtype).itemsize
        self._graph, self._settings = graph, settings
        self._position = 2 * directory.layers * directory.kv_heads * directory.head_size * item  # bytes
        self._jobs: list[weakref.ref[Job] | None] = []  # of each row
        self._holes = 0  # steps for which there have been free rows among others
        self.cache: Cache | None = None

    @property
    def size(self) -> int:
        """Bytes of keys and values, used or not."""
        cache = self.cache
        return 0 if cache is None else cache.rows * cache.capacity * self._position

    @property
    def count(self) -> int:
        """Number of rows up to the last one in use."""
        return len(self._jobs)

    def jobs(self) -> list[Job | None]:
        """The job of each row. Any thread may ask."""
        return [None if one is None else one() for one in list(self._jobs)]

    def have_room(self, live: Sequence[Job], job: Job) -> bool:
        """Whether a job may join others."""
        if not live:
            return True
        if not self._graph.on_host:
            return self.cache is None  # a cache that is in use cannot grow there
        longest = max(self._rounded(one.positions) for one in (*live, job))
        within = (len(live) + 1) * longest * self._position <= self._settings.kv_bytes
        return within and len(live) < self._settings.rows

    def seat(self, jobs: Sequence[Job]) -> list[Job | None]:
        """Give rows to jobs.

        Returns:
            The job of each row.

        Raises:
            ConfigError: There is not enough memory; nothing has changed.
        """
        found = self.jobs()
        free = [row for row, job in enumerate(found) if job is None]
        seats = [*free, *range(len(found), len(found) + len(jobs))][: len(jobs)]
        everyone = [*(job for job in found if job is not None), *jobs]
        cache = self._large_enough(max(len(found), seats[-1] + 1), everyone)
        # The newest bank holds what older ones hold, too: rows in use are not written.
        cache.use_bank(max((job.lease.array for job in everyone if job.lease is not None), key=len))
        found += [None] * (seats[-1] + 1 - len(found))
        for row, job in zip(seats, jobs, strict=True):
            cache.clear(row)
            cache.views[row], found[row] = job.view, job
        self.cache, self._jobs = cache, [None if job is None else weakref.ref(job) for job in found]
        return found

    def use_newest_bank(self) -> None:
        """Run with the newest bank of the jobs: it holds what older ones hold, too, as rows in use are not written."""
        banks = [job.lease.array for job in self.jobs() if job is not None and job.lease is not None]
        if self.cache is not None and banks:
            self.cache.use_bank(max(banks, key=len))

    def free(self, row: int) -> None:
        """A job leaves its row."""
        self._jobs[row] = None
        if self.cache is not None:
            self.cache.clear(row)
        while self._jobs and self._jobs[-1] is None:
            self._jobs.pop()
        if not self._jobs:
            self.cache = None

    def close_hole(self) -> None:
        """Move the last row to one that stayed free for some steps: a free row among others costs as much as one."""
        if None not in self._jobs:
            self._holes = 0
            return
        self._holes += 1
        if self._holes > _HOLE and self.cache is not None and self._graph.on_host:
            hole = self._jobs.index(None)
            self.cache.copy_row(len(self._jobs) - 1, hole)
            jobs = list(self._jobs)
            jobs[hole], jobs[-1] = jobs[-1], None
            self._jobs = jobs
            self.free(len(jobs) - 1)

    def _large_enough(self, rows: int, jobs: Sequence[Job]) -> Cache:
        """The cache, or a larger one with the same rows."""
        cache, longest = self.cache, max(job.positions for job in jobs)
        if cache is None:
            bank = next(job.lease.array for job in jobs if job.lease is not None)
            return Cache(self._graph, bank, rows, longest)
        if rows <= cache.rows and longest <= cache.capacity:
            return cache
        wide = cache.capacity if longest <= cache.capacity else self._rounded(longest)
        more = rows if rows <= cache.rows else max(rows, min(2 * cache.rows, self._settings.rows))
        within = more * wide * self._position <= self._settings.kv_bytes
        return cache.grown(more if within else rows, wide)

    def _rounded(self, positions: int) -> int:
        """A capacity for several rows: needs that differ a little are taken as equal, so a cache is seldom copied."""
        step = max(64, 1 << max(0, positions.bit_length() - 3))
        return min(-(-positions // step) * step, self._graph.directory.context_length)
