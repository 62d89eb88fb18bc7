"""Answers as they grow, between the thread that runs the model and the event loop of the server."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

from lime_edge.runtime import Generation, Runtime, Ticket, TokenLogprob
from lime_edge.runtime.types import Prompt


@dataclass(frozen=True)
class Row:
    """One answer that a request asks for."""

    prompt: Prompt
    settings: Mapping[str, Any]


class Piece(NamedTuple):
    """What a step of the model adds to one row."""

    row: int
    text: str
    tokens: int  # how many
    logprobs: Sequence[TokenLogprob]  # of these tokens, if they were asked for
    ended: Generation | None = None  # the whole answer, in the last piece of a row


class Answers(AsyncIterator[Piece]):
    """The rows of one request.

    Args:
        runtime: Answers them.
        skill: Of all rows.
        raw: As in `Runtime.generate`.
        rows: At least one.
    """

    def __init__(self, runtime: Runtime, skill: str | None, raw: bool, rows: Sequence[Row]) -> None:
        self._runtime, self._skill, self._raw, self._rows = runtime, skill, raw, rows
        self._loop: asyncio.AbstractEventLoop | None = None
        self._arrived = asyncio.Event()
        self._woken = False  # the loop will look at what has arrived
        self._pieces: deque[Piece | BaseException] = deque()
        self._tickets: list[Ticket] = []
        self._open = len(rows)  # rows that have not ended
        self._closed = False

    async def begin(self) -> None:
        """Wait until the first piece is there.

        Raises:
            LimeError: The request is invalid, or the server has no room for it.
        """
        self._loop = asyncio.get_running_loop()
        await asyncio.to_thread(self._submit)
        await self._wait()
        if isinstance(first := self._pieces[0], BaseException):
            raise first

    async def __anext__(self) -> Piece:
        if not self._open:
            raise StopAsyncIteration
        await self._wait()
        piece = self._pieces.popleft()
        if isinstance(piece, BaseException):
            raise piece
        self._open -= piece.ended is not None
        return piece

    def close(self) -> None:
        """Stop all rows that have not ended; may be called again."""
        self._closed = True
        for ticket in self._tickets:
            ticket.cancel()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    async def _wait(self) -> None:
        while not self._pieces:
            self._arrived.clear()
            self._woken = False
            if not self._pieces:
                await self._arrived.wait()

    def _submit(self) -> None:
        """In a thread, because a long prompt takes milliseconds to encode."""
        for number, row in enumerate(self._rows):
            if self._closed:  # the client has left
                return
            follow = _Follower(self, number)
            ticket = self._runtime.submit(
                row.prompt, self._skill, raw=self._raw, on_piece=follow.piece, on_end=follow.end, **row.settings
            )
            self._tickets.append(ticket)
            follow.ticket = ticket
        if self._closed:
            self.close()

    def put(self, piece: Piece | BaseException) -> None:
        """Hand a piece to the event loop; called by the thread that runs the model."""
        self._pieces.append(piece)
        if not self._woken and self._loop is not None:
            self._woken = True
            with contextlib.suppress(RuntimeError):  # the loop has been closed: the server has stopped
                self._loop.call_soon_threadsafe(self._arrived.set)


class _Follower:
    """Follows one row; its methods are called by the thread that runs the model."""

    def __init__(self, answers: Answers, row: int) -> None:
        self._answers, self._row = answers, row
        self._told = 0  # log-probabilities that are in pieces
        self.ticket: Ticket | None = None  # unknown during the first steps

    def piece(self, text: str, ids: Sequence[int]) -> None:
        if ids:
            self._answers.put(Piece(self._row, text, len(ids), self._logprobs()))

    def end(self, ticket: Ticket) -> None:
        self.ticket = ticket
        try:
            generation = ticket.result()
        except Exception as error:  # noqa: BLE001  (raised again where the request is answered)
            self._answers.put(error)
        else:
            self._answers.put(Piece(self._row, "", 0, self._logprobs(), generation))

    def _logprobs(self) -> Sequence[TokenLogprob]:
        known = None if self.ticket is None else self.ticket.answer.logprobs
        if known is None:
            return ()
        new = known[self._told :]
        self._told += len(new)
        return new
