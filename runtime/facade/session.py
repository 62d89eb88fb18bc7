"""A running conversation whose turns are answered by different skills, each position read once where that is exact."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Unpack

import numpy as np
import numpy.typing as npt

from lime_edge.common.strict_json import show
from lime_edge.errors import ConfigError
from lime_edge.runtime.decoding.contexts import common_length
from lime_edge.runtime.decoding.control import Control
from lime_edge.runtime.decoding.generation_options import Settings
from lime_edge.runtime.decoding.loop import Answer
from lime_edge.runtime.decoding.past import Past
from lime_edge.runtime.decoding.prefix_cache import Pin, PrefixCache
from lime_edge.runtime.scheduling.job import Job
from lime_edge.runtime.scheduling.scheduler import Scheduler
from lime_edge.runtime.scheduling.stream import Stream
from lime_edge.runtime.skills.registry import AppliedSkill, Lease
from lime_edge.runtime.types import ACTIVE, Active, Generation, Message, SkillSpec

Ids = npt.NDArray[np.int64]
Finish = Callable[[Answer], Generation]


@dataclass(frozen=True)
class Opened:
    """A turn that was checked and can run."""

    answer: Answer
    lease: Lease
    finish: Finish  # makes the result, with how its skill was chosen


@dataclass(frozen=True, eq=False)
class _Known:
    """What the conversation consists of so far, token by token."""

    ids: Ids  # [n]
    rows: Ids  # [n] the graph's number of the skill of each token
    skills: Mapping[int, AppliedSkill]  # by these numbers; 0 is the base
    leases: tuple[Lease, ...]  # keep their rows


class Session:
    """A conversation, made by `Runtime.session`. Safe to use from several threads; one turn runs at a time.

    A position keeps the skill that read or wrote it: the turns before are never read again by another skill, as long
    as the chat template writes them as before. New messages are read by the base if the skill of the turn has
    activation ``"response"``, and otherwise by this skill. docs/routing.md says what follows from that.

    Args:
        open_turn: Checks a turn: messages, skill, control and settings to what can run.
        scheduler, store: Those of the runtime.
        stream: Makes a stream of a job.
    """

    def __init__(
        self,
        open_turn: Callable[[list[Message], SkillSpec | Active, Control, Settings], Opened],
        scheduler: Scheduler,
        store: PrefixCache,
        stream: Callable[[Job, Finish], Stream],
    ) -> None:
        self._open_turn, self._scheduler, self._store, self._stream = open_turn, scheduler, store, stream
        self._messages: list[Message] = []
        self._known = _Known(np.zeros(0, np.int64), np.zeros(0, np.int64), {}, ())
        self._pin: Pin | None = store.pin()
        self._turn = threading.Lock()  # held from the beginning of a turn until its answer is in the conversation
        self._closed = False

    @property
    def messages(self) -> list[Message]:
        """The conversation so far, a copy."""
        return [dict(message) for message in self._messages]

    @property
    def history(self) -> list[tuple[int, tuple[str, ...]]]:
        """How many tokens in a row belong to which skills, from the first on; no name stands for the base."""
        known = self._known
        cuts = np.flatnonzero(np.diff(known.rows)) + 1
        names = {row: tuple(info.name for info, _ in skill.parts) for row, skill in known.skills.items()}
        return [(len(part), names.get(int(part[0]), ())) for part in np.split(known.rows, cuts) if len(part)]

    def append(self, content: str | Message | Sequence[Message]) -> None:
        """Add to the conversation; nothing is read until a turn is answered.

        Args:
            content: A text, which is a message of the user, a message, or a list of messages.

        Raises:
            ConfigError: It is none of these, a turn is running, or the session is closed.
        """
        given = {"role": "user", "content": content} if isinstance(content, str) else content
        added = [given] if isinstance(given, Mapping) else given
        if not isinstance(added, list | tuple) or not added or not all(isinstance(one, Mapping) for one in added):
            raise ConfigError(f"{show(content)} cannot be appended; expected text, a message, or a list of messages")
        self._begin()
        try:
            self._messages = [*self._messages, *(dict(message) for message in added)]
        finally:
            self._turn.release()

    def generate(self, skill: SkillSpec | Active = ACTIVE, **settings: Unpack[Settings]) -> Generation:
        """Answer the conversation and add the answer to it.

        Args:
            skill: Of this turn: a name, a blend, None for the base, or ``"auto"``. Default: the active skill.
            **settings: As in `Runtime.generate`. What was cancelled before its first token adds nothing.

        Raises:
            ConfigError: A setting or message is invalid, the conversation is empty, a turn is running, or the session
                is closed.
            UnknownSkillError: The skill is not loaded.
        """
        job, finish = self._job(skill, settings, streamed=False)
        self._scheduler.answer([job], 1)
        return finish(job.answer)

    def stream(self, skill: SkillSpec | Active = ACTIVE, **settings: Unpack[Settings]) -> Stream:
        """As `generate`, piece by piece; `Stream.switch` lets another skill go on with the answer.

        The turn ends when all pieces were read or the stream is closed, cancelled or deleted; what there is of the
        answer by then is added to the conversation.
        """
        return self._stream(*self._job(skill, settings, streamed=True))

    def close(self) -> None:
        """Let go of the memory of its positions. May be called again."""
        self._closed, self._pin = True, None
        self._known = _Known(self._known.ids, self._known.rows, {}, ())
        self._store.trim()

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _begin(self) -> None:
        if self._closed:
            raise ConfigError("the session is closed: make another one with Runtime.session")
        if not self._turn.acquire(blocking=False):
            raise ConfigError("a turn of this session is running: read or close its stream first")

    def _job(self, skill: SkillSpec | Active, settings: Settings, streamed: bool) -> tuple[Job, Finish]:
        self._begin()
        try:
            control = Control.of(settings)
            opened = self._open_turn(self._messages, skill, control, settings)
            answer, known, pin = opened.answer, self._known, self._store.pin()
            size = min(common_length(known.ids, answer.request.tokens.ids), len(answer.request.tokens.ids) - 1)
            rows = known.rows[:size]
            used = tuple(known.skills[row] for row in np.unique(rows).tolist() if row in known.skills)
            answer.request = replace(answer.request, past=Past(rows, used, pin))
            job = self._scheduler.job(answer, control, opened.lease, streamed=streamed)
        except BaseException:
            self._turn.release()
            raise
        job.kept = list(known.leases)

        def end() -> None:
            job.on_end = None  # otherwise the two would keep each other, and the pin
            self._end(answer, (*known.leases, opened.lease, *job.leases), pin)

        job.on_end = end
        return job, opened.finish

    def _end(self, answer: Answer, leases: tuple[Lease, ...], pin: Pin) -> None:
        """Add an answer to the conversation; called once, when it has ended."""
        try:
            if not answer.ids:
                return
            request = answer.request
            rows = np.concatenate([request.skills, answer.skills])
            skills = {applied.skill_id: applied for applied in request.every_skill}
            used = {row: skills[row] for row in np.unique(rows).tolist() if row}
            kept = tuple(dict.fromkeys(lease for lease in leases if {*lease.applied} & {*used.values()}))
            self._known = _Known(np.concatenate([request.tokens.ids, answer.ids]), rows, used, kept)
            self._messages = [*self._messages, {"role": "assistant", "content": "".join(answer.pieces)}]
            if not self._closed:
                self._pin = pin
        finally:
            with suppress(RuntimeError):
                self._turn.release()


def check_messages(messages: Sequence[Any]) -> None:
    """Raises ConfigError: there is nothing to answer."""
    if not messages:
        raise ConfigError("the session is empty: append a text or messages first")
