"""Streams an answer in pieces of text."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator

from lime_edge.errors import ConfigError
from lime_edge.runtime.skills.registry import Lease
from lime_edge.runtime.types import Generation

from .loop import Answer


class Stream(Iterator[str]):
    """Iterates over the text of one answer; the pieces add up to the text of `generate`.

    A stream may be abandoned early: `close`, or deleting it, frees its resources. Do not share it between threads.
    """

    def __init__(
        self,
        lease: Lease,
        answer: Answer,
        steps: Generator[tuple[int, str], None, None],
        finish: Callable[[Answer], Generation],
    ) -> None:
        self._lease: Lease | None = lease
        self._answer, self._steps, self._finish = answer, steps, finish

    def __next__(self) -> str:
        try:
            for _, piece in self._steps:
                if piece:
                    return piece
        except BaseException:
            self.close()
            raise
        self.close()
        raise StopIteration

    @property
    def generation(self) -> Generation:
        """The complete answer with finish reason, timings and receipt, available after the last piece.

        Raises:
            ConfigError: The stream was not read to its end.
        """
        if not self._answer.reason:
            raise ConfigError("the stream has not ended: read all pieces first")
        return self._finish(self._answer)

    def close(self) -> None:
        """Stop generating and free the cache."""
        lease, self._lease = self._lease, None
        self._steps.close()
        if lease is not None:
            lease.release()

    def __del__(self) -> None:
        self.close()
