"""One request as the engine sees it: an answer that grows, and whom it is for.

Only its caller keeps a job alive. The engine and the queue refer to it weakly: a caller that is interrupted, or that
forgets its stream, gives its row back without doing anything.
"""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field

from lime_edge.runtime.decoding.control import Control
from lime_edge.runtime.decoding.loop import Answer
from lime_edge.runtime.decoding.prefix_cache import View
from lime_edge.runtime.skills.registry import AppliedSkill, Lease

from .waiter import Waiter

_AHEAD = 16  # steps that an answer goes on while nobody reads its pieces


@dataclass(eq=False)
class Job:
    """A request, from when it is submitted until it is done.

    Attributes:
        answer: What grows; after the end it has its finish reason, except after an error.
        control: Says when to stop. The jobs of one call share it.
        lease: Keeps the rows of the bank; None once the job is done.
        view: The prefix cache as this request sees it.
        streamed: Somebody wants each piece soon.
        on_piece: Called after each step with the new text, maybe empty, and the new token ids.
        on_end: Called once, when the job is done.
        expires: When it stops waiting for a row, by time.monotonic().
        begun, read: Reading the prompt has begun, and has ended.
        pieces: Text that was not read yet, of a stream.
        error: What ended it, if it was not its answer.
        forgotten: Frees its row when nobody refers to it any more.
    """

    answer: Answer
    control: Control
    lease: Lease | None
    view: View | None = None
    user: str | None = None
    priority: int = 0
    streamed: bool = False
    on_piece: Callable[[str, list[int]], object] | None = None
    on_end: Callable[[], object] | None = None
    expires: float = float("inf")
    number: int = 0  # in the order of arrival
    arrived: float = 0.0  # by time.monotonic()
    welcomed: bool = False  # counted by the queue
    accounts: tuple[Hashable, Hashable] | None = None  # where the queue counts what it gets
    begun: bool = False
    read: bool = False
    done: bool = False
    error: BaseException | None = None
    switch: tuple[AppliedSkill, Lease, View] | None = None  # the skill that takes over after the next step
    kept: list[Lease] = field(default_factory=list)  # of the skills before
    leases: list[Lease] = field(default_factory=list)  # of the skills that took over; for who continues the answer
    reader: Waiter | None = None  # of the thread that waits for it
    pieces: deque[str] = field(default_factory=deque)
    forgotten: weakref.finalize[..., Job] | None = None
    _ahead: int = 0
    _told: int = 0

    @property
    def skill(self) -> Hashable:
        """What its skill is, for fairness."""
        return self.answer.request.applied.content

    @property
    def name(self) -> str:
        """The name of its skill: empty for the base, joined by + for a blend."""
        return "+".join(info.name for info, _ in self.answer.request.applied.parts)

    @property
    def positions(self) -> int:
        """Positions that it needs in the KV cache."""
        return len(self.answer.request.tokens.ids) + self.answer.limit

    @property
    def wants(self) -> bool:
        """Whether its answer is to go on: a stream that nobody reads stops after a few steps."""
        return self._ahead < _AHEAD or self.reader is not None

    def asked(self) -> None:
        """Its reader wants more."""
        self._ahead = 0

    def deliver(self, piece: str) -> None:
        """Tell of a step.

        Args:
            piece: The new text, maybe empty.
        """
        if self.on_piece is not None:
            known, self._told = self._told, len(self.answer.ids)
            self.on_piece(piece, self.answer.ids[known:])
        elif self.streamed:
            self._ahead += 1
            if piece:
                self.pieces.append(piece)
                self._wake()

    def finish(self, error: BaseException | None = None) -> None:
        """The job is done: with its answer, or with an error."""
        if self.done:
            return
        if not self.answer.reason:
            self.answer.end("cancelled")
        if self.forgotten is not None:
            self.forgotten.detach()
        self.lease, self.view, self.switch, self.error = None, None, None, error
        self.kept = []
        self.done = True
        self._wake()
        if self.on_end is not None:
            self.on_end()

    def take_error(self) -> BaseException | None:
        """The error, for who raises it; the job keeps it no longer, for its traceback would keep the job."""
        error, self.error = self.error, None
        return error

    def _wake(self) -> None:
        if (reader := self.reader) is not None:
            reader.wake()
