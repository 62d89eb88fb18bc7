"""When a piece of which prompt is read, so that running answers do not stall.

If all rows are of one call, or nobody watches the running answers grow, prompts come first: then more rows share every
step. While somebody watches, at most one small piece is read between two steps; a prompt that is longer than a few
pieces only gets one every `_SPACING` steps, so nineteen of twenty tokens come as fast as without it.
"""

from __future__ import annotations

from collections.abc import Sequence

from lime_edge.runtime.decoding.kv_cache import CHUNK

from .fair_queue import FairQueue
from .job import Job

_PIECE = 64  # tokens read at once while somebody watches
_SHORT = 2 * _PIECE  # a prompt of which no more is left is read without spacing
_SPACING = 30  # steps between two pieces of longer prompts
_BURST = 512  # tokens read between two steps while nobody watches


class ReadingPlan:
    """Decides about pieces of prompts.

    Args:
        queue: Ranks jobs.
    """

    def __init__(self, queue: FairQueue) -> None:
        self._queue = queue
        self._read = 0  # tokens since the last step
        self._steps = 0  # since the last piece of a long prompt

    def stepped(self) -> None:
        """All rows have taken a step."""
        self._read = 0
        self._steps += 1

    def next(self, reading: Sequence[tuple[Job, int]], going: Sequence[Job]) -> tuple[Job, int] | None:
        """The job of which a piece of the prompt is read now.

        Args:
            reading: Jobs whose prompts are being read, and how many tokens are left of each.
            going: Jobs whose answers are growing.

        Returns:
            It, and the maximum number of tokens; None: the answers take a step.
        """
        if not reading:
            return None
        if not going or len({id(job.control) for job in (*going, *(job for job, _ in reading))}) == 1:
            return self._first(reading), CHUNK
        watched = any(job.streamed or job.on_piece is not None for job in going)
        if self._read >= (1 if watched else _BURST):
            return None
        short = [one for one in reading if one[1] <= _SHORT]
        if watched and not short and self._steps < _SPACING:
            return None
        job = self._first(short or reading)
        size = min(dict(reading)[job], _PIECE if watched else CHUNK)
        self._read += size
        if not short:
            self._steps = 0
        return job, size

    def _first(self, reading: Sequence[tuple[Job, int]]) -> Job:
        return min((job for job, _ in reading), key=self._queue.rank)
