"""Streams an answer in pieces of text."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence

from lime_edge.errors import ConfigError
from lime_edge.runtime.model.session import Graph
from lime_edge.runtime.skills.registry import Lease
from lime_edge.runtime.types import Generation, TokenLogprob

from .control import Control
from .loop import Answer, run, until_stopped
from .prefix_cache import PrefixCache


class Stream(Iterator[str]):
    """Iterates over the text of one answer; the pieces add up to the text of `generate`.

    A stream may be abandoned early: `cancel` or `close` it from any thread, or delete it, and its resources are freed.
    Threads that read the same stream wait for each other; each piece goes to one of them.
    """

    def __init__(
        self,
        graph: Graph,
        lease: Lease,
        answer: Answer,
        control: Control,
        finish: Callable[[Answer], Generation],
        store: PrefixCache | None = None,
    ) -> None:
        self._graph, self._lease, self._answer, self._control, self._finish = graph, lease, answer, control, finish
        self._steps = until_stopped(run(graph, lease.array, [answer], store), [answer], control)
        self._ended = False  # resources are freed
        self._running = threading.Lock()  # held by the thread that takes steps, or frees

    def __next__(self) -> str:
        self._graph.refuse_fork()
        try:
            with self._running:
                return self._next()
        finally:
            self._settle()

    def _next(self) -> str:
        try:
            for _, piece in self._steps:
                if piece:
                    return piece
        except BaseException:
            self._free()
            raise
        self._free()
        raise StopIteration

    @property
    def generation(self) -> Generation:
        """The answer with finish reason, timings and receipt, available once the stream has ended.

        If it was cancelled, closed, or ended by an error, this is what had been produced until then.

        Raises:
            ConfigError: The stream has not ended.
        """
        if not self._answer.reason:
            raise ConfigError("the stream has not ended: read all pieces first, or close it")
        return self._finish(self._answer)

    @property
    def logprobs(self) -> Sequence[TokenLogprob]:
        """One for each token so far, if they were asked for; also while the stream runs."""
        return () if self._answer.logprobs is None else tuple(self._answer.logprobs)

    def cancel(self) -> None:
        """Stop generating; the finish reason becomes ``"cancelled"``. Any thread may call this, at any time.

        Returns at once. A thread that is reading gets the end of the stream after the current chunk of the prompt or
        the current token, and frees the cache; if none is reading, this call does.
        """
        self._control.cancel()
        self._settle()

    def close(self) -> None:
        """Stop generating and free the cache: the same as `cancel`."""
        self.cancel()

    def _settle(self) -> None:
        """Free a cancelled stream, unless a thread is reading: that one will.

        The lock may be this thread's own: a garbage collector or a signal interrupted it. A reader that takes the lock
        after this look at it sees that the stream is cancelled before it runs the graph.
        """
        if self._control.cancelled and not self._ended and not self._running.locked():
            with self._running:
                self._free()

    def _free(self) -> None:
        """End the answer, and free its cache and rows; only with the lock, and once more if it was interrupted."""
        if self._ended:
            return
        self._steps.close()
        self._lease.release()
        if not self._answer.reason:
            self._answer.end("cancelled")
        self._ended = True
