"""The step engine: rows join and leave a running batch. For one thread at a time: the driver.

A job gets a row of the KV cache, a contiguous part of it, in which its prompt is read, in pieces between the steps of
the others. A step runs one token of every row; a row whose draft promises more than that runs alone. After each round
every row is as its answer says, so it does not matter who drives the next one.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Collection
from contextlib import suppress

from lime_edge.errors import ConfigError, OverloadedError
from lime_edge.runtime.decoding.kv_cache import Array, Cache
from lime_edge.runtime.decoding.loop import begin_prompt, read_piece, settle_steps, step_alone, step_together
from lime_edge.runtime.model.session import Graph

from .failing import Failing
from .fair_queue import FairQueue
from .job import Job
from .reading_plan import ReadingPlan
from .rows import Rows
from .scheduler_settings import SchedulerSettings

_DRAFTING = 5  # more rows than this share every step: their drafts do not pay

Live = dict[int, Job]  # by row, in order


class Engine:
    """Runs jobs, a round at a time.

    Args:
        graph: The graph to run.
        settings: Limits on rows and memory.
        queue: The jobs that wait for a row.

    Attributes:
        rows: Who has a row.
        finished: Number of jobs by finish reason, and of errors and overloads.
        prompt_tokens, reused_tokens, new_tokens: Totals.
        seconds: Moving average of the time that a job has a row.
    """

    def __init__(self, graph: Graph, settings: SchedulerSettings, queue: FairQueue) -> None:
        self._settings, self._queue = settings, queue
        self._plan = ReadingPlan(queue)
        self.rows = Rows(graph, settings)
        self.finished: Counter[str] = Counter()
        self.prompt_tokens = self.reused_tokens = self.new_tokens = 0
        self.seconds = 0.0

    @property
    def retry_after(self) -> float:
        """Seconds after which a request that came now would probably get a row."""
        waiting = len(self._queue) + 1
        return max(0.1, self.seconds * waiting / self._settings.rows)

    def advance(self, only: Collection[Job] | None = None) -> bool:
        """Do one round: end what is to end, give rows to waiting jobs, then read a piece of a prompt or take a step.

        Args:
            only: Run these jobs alone; None: all.

        Returns:
            False if there was nothing to do.
        """
        live = self.let_go(only)
        if len(self._queue):
            live = self._admit(live, only)
        cache = self.rows.cache
        if cache is None:
            return False
        going, reading = dict[int, Job](), dict[int, Job]()
        for row, job in live.items():
            if only is None or job in only:
                if not job.read:
                    reading[row] = job
                else:
                    if job.switch is not None:
                        self._switch(cache, row, job)
                    if job.wants:
                        going[row] = job
        if reading and self._read_next(cache, reading, list(going.values())):
            return True
        if going:
            self._step(cache, going)
        return bool(going)

    def let_go(self, only: Collection[Job] | None = None) -> Live:
        """End the jobs that are to stop, and free the rows of those that nobody refers to any more.

        Args:
            only: Jobs whose events and deadlines are looked at; None: all. Others end only if they were cancelled.

        Returns:
            The others that have a row.
        """
        live, reasons = {}, dict[int, str]()
        for row, job in enumerate(self.rows.jobs()):
            if job is not None and not job.done and not self._stops(job, reasons, only):
                live[row] = job
            elif row < self.rows.count:
                self.rows.free(row)
        for job in self._queue.jobs() if len(self._queue) else ():
            if self._stops(job, reasons, only) or self._expired(job):
                self._queue.remove(job)
        return live

    # -- joining and leaving -------------------------------------------------------------------------

    def _stops(self, job: Job, reasons: dict[int, str], only: Collection[Job] | None) -> bool:
        """Whether a job has to stop; then it is done. A control is asked once a round."""
        control = job.control
        with Failing(lambda error: self._done(job, error)):  # of the caller's event or function
            if id(control) not in reasons:
                asks = only is None or job in only
                reasons[id(control)] = control.reason if asks else "cancelled" if control.cancelled else ""
            self._stop(job, reasons[id(control)])
        return job.done

    def _stop(self, job: Job, reason: str) -> bool:
        """End a job if there is a reason; returns whether there is."""
        if reason:
            job.answer.end(reason)
            job.deliver(job.answer.rest())
            self._done(job)
        return bool(reason)

    def _expired(self, job: Job) -> bool:
        if late := time.monotonic() >= job.expires:
            waited = time.monotonic() - job.arrived
            text = f"no row became free in {waited:.3g} s: try again in {self.retry_after:.1f} s"
            self._done(job, OverloadedError(text, self.retry_after))
        return late

    def _admit(self, live: Live, only: Collection[Job] | None) -> Live:
        """Give rows to the jobs that are next, as far as there is room."""
        waiting = self._queue.jobs()
        for job in waiting:
            if not job.welcomed:
                self._queue.welcome(job, [*live.values(), *waiting])
        waiting = [job for job in waiting if only is None or job in only]
        # If all rows are those of streams that nobody reads, waiting for one could take for ever.
        stuck = not any(job.wants or not job.read for job in live.values() if only is None or job in only)
        seated: list[Job] = []
        while waiting:
            job = min(waiting, key=self._queue.rank)
            if not (self.rows.have_room([*live.values(), *seated], job) or (stuck and not seated)):
                break
            waiting.remove(job)
            seated.append(job)
        if not seated:
            return live
        try:
            found = self.rows.seat(seated)
        except ConfigError as error:
            for job in seated if not live else ():
                self._queue.remove(job)
                self._done(job, error)
            return live  # if others have rows, the jobs wait for their memory
        for job in seated:
            self._queue.remove(job)
            job.answer.started = time.perf_counter()
        return {row: job for row, job in enumerate(found) if job is not None}

    def _leave(self, row: int, job: Job, error: BaseException | None = None) -> None:
        """A job leaves its row: its answer has ended, or failed."""
        if error is None and self.rows.cache is not None:
            with suppress(MemoryError):  # later requests read it again
                self.rows.cache.remember(row, job.answer.request.past.pin)
        self.rows.free(row)
        self._done(job, error)

    def _done(self, job: Job, error: BaseException | None = None) -> None:
        reason = job.answer.reason if error is None else "overloaded" if isinstance(error, OverloadedError) else "error"
        self.finished[reason] += 1
        self.new_tokens += len(job.answer.ids)
        if job.answer.started:
            self.seconds += 0.1 * (time.perf_counter() - job.answer.started - self.seconds)
        job.finish(error)

    # -- what a row does -----------------------------------------------------------------------------

    def _switch(self, cache: Cache, row: int, job: Job) -> None:
        """Let another skill go on with an answer from its newest token."""
        if job.switch is None:
            return
        applied, lease, view = job.switch
        if job.lease is not None:
            job.kept.append(job.lease)
        job.leases.append(lease)
        job.lease, job.view, job.switch = lease, view, None
        self.rows.use_newest_bank()
        cache.views[row] = view
        job.answer.switch(applied)

    def _read_next(self, cache: Cache, reading: Live, going: list[Job]) -> bool:
        """Read a piece of a prompt, unless it is time for a step."""
        calls = {id(job.control) for job in reading.values() if job.begun}
        for row, job in sorted(reading.items(), key=lambda item: self._queue.rank(item[1])):
            if (
                not job.begun and id(job.control) not in calls
            ):  # in a call, the next prompt may share more with the last
                calls.add(id(job.control))
                begin_prompt(cache, row, job.answer)
                job.begun = True
        begun = {job: row for row, job in reading.items() if job.begun}
        left = [(job, len(job.answer.request.tokens.ids) - cache.lengths[row]) for job, row in begun.items()]
        piece = self._plan.next(left, going)
        if piece is not None:
            self._read(cache, begun[piece[0]], *piece)
        return piece is not None

    def _read(self, cache: Cache, row: int, job: Job, most: int) -> None:
        """Read a piece of a prompt; after the last one, the answer begins."""
        before = cache.lengths[row]
        with self._failing({row: job}):
            logits = read_piece(cache, row, job.answer, most)
            self._queue.serve(job, cache.lengths[row] - before)
            if logits is None or (job.control.cancelled and self._stop(job, "cancelled")):
                return
            if job.answer.scored_choices:
                logits = logits.copy()  # the next run overwrites them
            for _ in settle_steps(cache, row, job.answer, logits):
                if self._stop(job, job.control.reason):
                    return
            job.read = True
            self.prompt_tokens += cache.lengths[row]
            self.reused_tokens += job.answer.reused
            self._take(row, job, logits[None])

    def _step(self, cache: Cache, going: Live) -> None:
        """A step of all rows that are going on."""
        self._plan.stepped()
        alone = self._drafts(going)
        together = {row: job for row, job in going.items() if row not in alone} if len(going) > len(alone) else {}
        if len(together) > 1:
            self._step_together(cache, together)
        for row, draft in alone.items():
            self._step_alone(cache, row, going[row], draft)
        self.rows.close_hole()

    def _step_alone(self, cache: Cache, row: int, job: Job, draft: list[int]) -> None:
        known = len(job.answer.ids)
        with self._failing({row: job}):
            self._tell(row, job, step_alone(cache, row, job.answer, draft), known)

    def _drafts(self, going: Live) -> dict[int, list[int]]:
        """The drafts, maybe empty, of the rows that run alone."""
        if len(going) > _DRAFTING:
            return {}
        drafts = {row: job.answer.draft(len(going) - 1) for row, job in going.items()}
        shared = [row for row, draft in drafts.items() if not draft]
        return drafts if len(shared) < 2 else {row: draft for row, draft in drafts.items() if draft}

    def _step_together(self, cache: Cache, going: Live) -> None:
        start, stop = min(going), max(going) + 1
        answers = [going[row].answer if row in going else None for row in range(start, stop)]
        with self._failing(going):
            logits = step_together(cache, start, answers)
            for row, job in going.items():
                with self._failing({row: job}):
                    self._take(row, job, logits[row - start : row - start + 1])

    def _take(self, row: int, job: Job, logits: Array) -> None:
        """Take the next token from logits [1, V]."""
        known = len(job.answer.ids)
        self._tell(row, job, job.answer.take(logits), known)

    def _tell(self, row: int, job: Job, piece: str, known: int) -> None:
        """Deliver what a step gave; the job leaves if its answer has ended."""
        self._queue.serve(job, len(job.answer.ids) - known)
        job.deliver(piece)
        if job.answer.reason:
            self._leave(row, job)

    def _failing(self, jobs: Live) -> Failing:
        """A block for these jobs."""

        def end(error: BaseException) -> None:
            for row, job in jobs.items():
                if not job.done:
                    self._leave(row, job, error)

        return Failing(end)
