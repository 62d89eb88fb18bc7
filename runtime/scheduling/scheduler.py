"""Where requests of all threads meet: they wait here, share the engine's steps, and leave with their answers."""

from __future__ import annotations

import threading
import time
import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

from lime_edge.errors import ConfigError, OverloadedError
from lime_edge.runtime.decoding.control import Control
from lime_edge.runtime.decoding.loop import Answer
from lime_edge.runtime.decoding.prefix_cache import PrefixCache
from lime_edge.runtime.model.session import Graph
from lime_edge.runtime.skills.registry import Lease

from .engine import Engine
from .fair_queue import FairQueue
from .job import Job
from .scheduler_settings import SchedulerSettings, SchedulerStats
from .turns import Turns
from .waiter import Waiter


class Scheduler:
    """The requests of one runtime. Safe to use from several threads.

    Args:
        graph: The graph to run.
        store: What requests have read.
        settings: Limits.
    """

    def __init__(self, graph: Graph, store: PrefixCache, settings: SchedulerSettings) -> None:
        self._graph, self._store, self._settings = graph, store, settings
        self._queue = FairQueue()
        self._engine = Engine(graph, settings, self._queue)
        self._turns = Turns()
        self._refused = 0

    def job(
        self,
        answer: Answer,
        control: Control,
        lease: Lease,
        *,
        streamed: bool = False,
        on_piece: Callable[[str, list[int]], object] | None = None,
        on_end: Callable[[], object] | None = None,
    ) -> Job:
        """A job for an answer that was opened. It is not submitted yet."""
        options = answer.request.options
        job = Job(
            answer,
            control,
            lease,
            self._store.view(answer.request.every_skill),
            options.user,
            options.priority,
            streamed,
            on_piece,
            on_end,
        )
        job.forgotten = weakref.finalize(job, _settle, weakref.ref(self))
        job.forgotten.atexit = False
        return job

    def switch(self, job: Job, lease: Lease) -> None:
        """Let another skill go on with a job from its next token on; after its end this does nothing.

        Args:
            job: The job.
            lease: Of that skill alone.
        """
        (applied,) = lease.applied
        if not job.done:
            job.switch = applied, lease, self._store.view([applied, *job.answer.request.every_skill])

    def submit(self, job: Job) -> None:
        """Let a job wait for a row.

        Raises:
            OverloadedError: Too many are waiting.
        """
        most = self._settings.waiting
        if most is not None and len(self._queue) >= most + self._free_rows():
            self._refused += 1
            wait = self._engine.retry_after
            raise OverloadedError(f"{len(self._queue)} requests are waiting: try again in {wait:.1f} s", wait)
        if self._settings.patience is not None:
            job.expires = time.monotonic() + self._settings.patience
        self._queue.add(job)
        self._turns.pass_on()

    def answer(self, jobs: Sequence[Job], together: int) -> None:
        """Run jobs of one call until all are done.

        Args:
            jobs: Not submitted yet.
            together: How many of them may run at the same time.

        Raises:
            BaseException: What one of them raised; the others are cancelled.
            OverloadedError: Too many are waiting.
        """
        waiting, going = list(reversed(jobs)), list[Job]()
        engine, submit = self._engine, self.submit
        if self._turns.mine:  # called by a function that the engine calls, or by the handler of a signal
            queue = FairQueue()
            engine, submit = Engine(self._graph, self._settings, queue), queue.add
        try:
            while waiting or going:
                while waiting and len(going) < together:
                    submit(waiting[-1])
                    going.append(waiting.pop())
                self._wait(going, lambda: any(job.done for job in going), engine)
                for job in [job for job in going if job.done]:
                    going.remove(job)
                    if job.error is not None:
                        raise job.take_error() or AssertionError
        finally:
            if going:
                self.abandon(going)

    def wait(self, job: Job) -> None:
        """Wait until a submitted job has a piece, or is done."""
        if self._turns.mine:
            raise ConfigError("a stream was read inside a step of the model: read it outside of callbacks and handlers")
        job.asked()
        self._wait([job], lambda: bool(job.pieces) or job.done, self._engine)

    def abandon(self, jobs: Iterable[Job]) -> None:
        """Cancel jobs; their rows are free at the next round, at once if nobody drives."""
        for job in jobs:
            job.control.cancel()
        self.settle()

    def settle(self) -> None:
        """End what is cancelled or forgotten, unless somebody drives, who will. Safe in a finalizer."""
        self._turns.attempt(lambda: self._engine.let_go(()))

    def run(self, stop: threading.Event) -> None:
        """Drive until an event is set: for the thread of a server whose callers do not wait in threads.

        Args:
            stop: Looked at between two rounds and, while there is nothing to do, four times a second; see `wake`.

        Raises:
            ConfigError: Called in the main thread, whose handlers of signals would interrupt the requests of others.
        """
        waiter = Waiter()
        if waiter.main:
            raise ConfigError("the scheduler runs in the main thread: start a thread for it")
        self._turns.drive(waiter, stop.is_set, self._engine.advance)

    def wake(self) -> None:
        """Let a thread in `run` look at its event."""
        self._turns.wake_all()

    def stats(self) -> SchedulerStats:
        """What goes on now; never waits."""
        engine, running, waiting = self._engine, self._running(), self._queue.jobs()
        finished = Counter(engine.finished)
        finished["overloaded"] += self._refused
        return SchedulerStats(
            running=len(running),
            waiting=len(waiting),
            rows=self._settings.rows,
            kv_used=engine.rows.size,
            kv_bytes=self._settings.kv_bytes,
            retry_after=engine.retry_after,
            prompt_tokens=engine.prompt_tokens,
            prefix_hits=engine.reused_tokens,
            new_tokens=engine.new_tokens,
            finished={reason: count for reason, count in finished.items() if count},
            running_by_skill=Counter(job.name for job in running),
            waiting_by_skill=Counter(job.name for job in waiting),
        )

    def _running(self) -> list[Job]:
        return [job for job in self._engine.rows.jobs() if job is not None]

    def _free_rows(self) -> int:
        return max(0, self._settings.rows - len(self._running()))

    def _wait(self, jobs: Sequence[Job], until: Callable[[], bool], engine: Engine) -> None:
        waiter = Waiter()
        only = jobs if waiter.main else None
        if engine is not self._engine:
            while not until():
                engine.advance()
            return
        try:
            for job in jobs:
                job.reader = waiter
            self._turns.drive(waiter, until, lambda: engine.advance(only))
        finally:
            for job in jobs:
                job.reader = None


def _settle(scheduler: weakref.ref[Scheduler]) -> None:
    with suppress(AttributeError):  # at exit
        if (found := scheduler()) is not None:
            found.settle()
