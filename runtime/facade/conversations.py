"""How a runtime begins answers: of single calls, and of the turns of a conversation."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from lime_edge.contract.vector_kinds import Kind
from lime_edge.errors import StoppedError
from lime_edge.runtime.constraints.answer_constraints import AnswerConstraints
from lime_edge.runtime.decoding.contexts import Context, opening_of
from lime_edge.runtime.decoding.control import Control
from lime_edge.runtime.decoding.generation_options import Settings
from lime_edge.runtime.decoding.loop import Answer
from lime_edge.runtime.decoding.prefix_cache import DEFAULT_BYTES, PrefixCache
from lime_edge.runtime.decoding.requests import open_requests
from lime_edge.runtime.decoding.results import to_generation
from lime_edge.runtime.model.session import Graph
from lime_edge.runtime.scheduling.job import Job
from lime_edge.runtime.scheduling.scheduler import Scheduler
from lime_edge.runtime.scheduling.scheduler_settings import SchedulerSettings
from lime_edge.runtime.scheduling.stream import Stream
from lime_edge.runtime.skills.registry import Lease
from lime_edge.runtime.text.prompts import Text
from lime_edge.runtime.types import Active, Generation, Message, SkillSpec
from lime_edge.trust.policy import TrustPolicy

from .call_rows import Rows
from .routed_skills import Routed, RoutedSkills, finisher, with_route
from .session import Opened, Session, check_messages


class Conversations(RoutedSkills):
    """Checks requests and makes them ready to run. Safe to use from several threads."""

    def __init__(
        self,
        graph: Graph,
        text: Text,
        limits: Mapping[Kind, float],
        trust: TrustPolicy | None = None,
        prefix_cache: int = DEFAULT_BYTES,
        scheduler: SchedulerSettings | None = None,
    ) -> None:
        super().__init__(graph, text, limits, trust, PrefixCache(graph, prefix_cache))
        self._scheduler = Scheduler(graph, self._prefixes, scheduler or SchedulerSettings())
        self._constraints = AnswerConstraints(text, graph.vocabulary)

    def session(self) -> Session:
        """Begin a conversation whose turns can have different skills; nothing that stays exact is read twice."""
        return Session(self._open_turn, self._scheduler, self._prefixes, self._stream)

    def _answer(
        self, rows: Rows, raw: bool, settings: Settings, context: Context | None, batch_size: int
    ) -> list[Generation]:
        """Answer the rows of a call."""
        control = Control.of(settings)
        answers, lease, routed = self._open(rows, raw, settings, context, control)
        jobs = [self._scheduler.job(answer, control, lease) for answer in answers]
        del lease  # the jobs keep it, as long as one of them runs
        self._scheduler.answer(jobs, batch_size)
        return [with_route(self._generation(answer), found) for answer, found in zip(answers, routed, strict=True)]

    def _open(
        self, rows: Rows, raw: bool, settings: Settings, context: Context | None, control: Control
    ) -> tuple[list[Answer], Lease, list[Routed | None]]:
        """Check the rows of a call; their answers, what keeps their skills, and how these were chosen."""
        opening = opening_of(context, self._prefixes, raw)
        try:
            lease, routed = self._lease(rows, raw, opening, control)
        except StoppedError:  # the answers end before their first token
            lease, routed = self._registry.lease([None] * len(rows.skills)), [None] * len(rows.skills)
        try:
            answers = open_requests(
                *(self._graph, self._text, self._constraints, rows.prompts, lease.applied, raw, settings, opening)
            )
        except BaseException:
            lease.release()
            raise
        return answers, lease, routed

    def _stream(self, job: Job, finish: Callable[[Answer], Generation]) -> Stream:
        return Stream(self._graph, self._scheduler, job, finish, self._registry.lease)

    def _open_turn(
        self, messages: list[Message], skill: SkillSpec | Active, control: Control, settings: Settings
    ) -> Opened:
        check_messages(messages)
        answers, lease, routed = self._open(Rows([messages], [skill], True), False, settings, None, control)
        return Opened(answers[0], lease, finisher(self._generation, routed[0]))

    def _generation(self, answer: Answer) -> Generation:
        return to_generation(answer, self._graph.directory.contract)
