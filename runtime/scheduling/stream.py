"""Streams an answer in pieces of text."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence

from lime_edge.errors import ConfigError
from lime_edge.runtime.decoding.loop import Answer
from lime_edge.runtime.model.session import Graph
from lime_edge.runtime.skills.registry import Lease
from lime_edge.runtime.types import Generation, SkillSpec, TokenLogprob

from .job import Job
from .scheduler import Scheduler


class Stream(Iterator[str]):
    """Iterates over the text of one answer; the pieces add up to the text of `generate`.

    The request begins with the first piece that is asked for. A stream may be abandoned early: `cancel` or `close` it
    from any thread, or delete it, and its resources are freed. Threads that read the same stream wait for each other;
    each piece goes to one of them.
    """

    def __init__(
        self,
        graph: Graph,
        scheduler: Scheduler,
        job: Job,
        finish: Callable[[Answer], Generation],
        lease: Callable[[Sequence[SkillSpec]], Lease],
    ) -> None:
        self._graph, self._scheduler, self._job, self._finish = graph, scheduler, job, finish
        self._lease = lease
        self._submitted = False
        self._running = threading.Lock()  # held by the thread that reads

    def __next__(self) -> str:
        self._graph.refuse_fork()
        try:
            with self._running:
                return self._next()
        finally:
            self._settle()

    def _next(self) -> str:
        job = self._job
        try:
            if not self._submitted and not job.done:
                self._scheduler.submit(job)
                self._submitted = True
            while not job.pieces and not job.done:
                self._scheduler.wait(job)
        except BaseException:
            job.control.cancel()
            raise
        if job.pieces:
            return job.pieces.popleft()
        raise job.take_error() or StopIteration

    @property
    def generation(self) -> Generation:
        """The answer with finish reason, timings and receipt, available once the stream has ended.

        If it was cancelled, closed, or ended by an error, this is what had been produced until then.

        Raises:
            ConfigError: The stream has not ended.
        """
        if not self._job.done:
            raise ConfigError("the stream has not ended: read all pieces first, or close it")
        return self._finish(self._job.answer)

    @property
    def logprobs(self) -> Sequence[TokenLogprob]:
        """One for each token so far, if they were asked for; also while the stream runs."""
        found = self._job.answer.logprobs
        return () if found is None else tuple(found)

    def switch(self, skill: SkillSpec) -> None:
        """Let another skill go on with the answer, from the newest token that was produced.

        It takes over before the next step; the settings, the form of the answer and its stop strings stay. After the
        end of the stream this does nothing.

        Args:
            skill: A name, a blend, or None for the base.

        Raises:
            UnknownSkillError: The skill is not loaded.
            ConfigError: The blend is invalid, or the model has soft prefixes, which stand before a prompt.
        """
        if self._graph.virtual_tokens:
            raise ConfigError("this model's skills are soft prefixes before the prompt: none can take over an answer")
        self._scheduler.switch(self._job, self._lease([skill]))

    def cancel(self) -> None:
        """Stop generating; the finish reason becomes ``"cancelled"``. Any thread may call this, at any time.

        Returns at once. A thread that is reading gets the end of the stream after the current chunk of the prompt or
        the current token, and its row is free then; if no thread runs the model, it is free at once.
        """
        self._job.control.cancel()
        self._settle()

    def close(self) -> None:
        """Stop generating and free the cache: the same as `cancel`."""
        self.cancel()

    def _settle(self) -> None:
        """Free a cancelled stream, unless a thread runs the model: that one will.

        The lock may be this thread's own: a garbage collector or a signal interrupted it. A reader that takes the lock
        after this look at it submits a request that is cancelled.
        """
        if not self._job.control.cancelled or self._job.done:
            return
        if not self._submitted and not self._running.locked():
            with self._running:
                if not self._submitted:
                    self._job.finish()
        self._scheduler.settle()
