"""A request whose caller does not wait in a thread."""

from __future__ import annotations

import weakref
from collections.abc import Callable

from lime_edge.errors import ConfigError
from lime_edge.runtime.decoding.loop import Answer
from lime_edge.runtime.types import Generation

from .job import Job
from .scheduler import Scheduler


class Ticket:
    """Made by `Runtime.submit`. Keep it until the request is done: one that nobody refers to is cancelled.

    Some thread has to drive meanwhile: one in `Scheduler.run`, or any that waits for an answer, but not the main
    thread, which runs its own requests alone.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        job: Job,
        finish: Callable[[Answer], Generation],
        on_end: Callable[[Ticket], object] | None,
    ) -> None:
        self._scheduler, self._job, self._finish = scheduler, job, finish
        if on_end is not None:
            mine = weakref.ref(self)
            job.on_end = lambda: None if (ticket := mine()) is None else on_end(ticket)
        scheduler.submit(job)

    @property
    def answer(self) -> Answer:
        """The answer as it grows."""
        return self._job.answer

    @property
    def done(self) -> bool:
        """Whether the request has ended."""
        return self._job.done

    def result(self) -> Generation:
        """The answer.

        Raises:
            ConfigError: The request has not ended.
            LimeError: What ended it instead, such as an OverloadedError.
        """
        if not self._job.done:
            raise ConfigError("the request has not ended: wait for on_end")
        if self._job.error is not None:
            raise self._job.error
        return self._finish(self._job.answer)

    def cancel(self) -> None:
        """Stop; its row is free at the next step. Any thread may call this, at any time."""
        self._job.control.cancel()
        self._scheduler.settle()
