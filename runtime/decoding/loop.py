"""What one row of a batch does: its answer as it grows, and the steps that it takes alone or with others.

A row's answer depends only on its own prompt, skill and settings, never on other rows.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from lime_edge.errors import ConfigError
from lime_edge.runtime.constraints.choice_trie import ChoiceConstraint
from lime_edge.runtime.constraints.constraint import Constraint, restrict
from lime_edge.runtime.drafting.acceptance import verify
from lime_edge.runtime.drafting.drafter import Drafter
from lime_edge.runtime.drafting.step_costs import StepCosts
from lime_edge.runtime.model.session import Graph
from lime_edge.runtime.skills.bank import Array
from lime_edge.runtime.skills.registry import AppliedSkill
from lime_edge.runtime.text.prompts import Text, Tokens
from lime_edge.runtime.text.text_stream import TextStream
from lime_edge.runtime.types import Timings

from .choice_scores import score_steps
from .generation_options import DEFAULT_NEW_TOKENS, Options
from .kv_cache import Cache, Ids
from .logprobs import Logprobs
from .past import Past, Switch
from .sampling import Sampler

_DOUBT = 0.02  # share of the first token's probability that all other choices may have together


@dataclass(frozen=True, eq=False)
class Request:
    """One row to be answered: prompt, skill and final settings."""

    tokens: Tokens
    applied: AppliedSkill
    options: Options
    constraint: Constraint | None = None  # on the text of the answer; used by this request alone
    past: Past = field(default_factory=Past)  # of a conversation whose turns have different skills

    @property
    def skills(self) -> Ids:
        """The skill of each prompt token, [S]: that of the past, then 0, the base, before the skill begins."""
        rows = skill_rows(self.tokens, self.applied)
        rows[: len(self.past.rows)] = self.past.rows
        return rows

    @property
    def every_skill(self) -> tuple[AppliedSkill, ...]:
        """The skills of its tokens."""
        return self.applied, *self.past.applied

    def limit(self, context_length: int) -> int:
        """Maximum number of new tokens; the default is cut at the end of the context."""
        room = context_length - len(self.tokens.ids)
        return self.options.max_new_tokens or min(DEFAULT_NEW_TOKENS, room)


def with_prefix(tokens: Tokens, applied: AppliedSkill, graph: Graph) -> Tokens:
    """Put the virtual tokens of a skill's soft prefix before the prompt; their ids follow those of the vocabulary.

    For the base, and in a graph without virtual tokens, the prompt is returned unchanged.
    """
    count = prefix_of(applied, graph)
    if not count:
        return tokens
    virtual = graph.vocabulary + np.arange(count)
    return replace(tokens, ids=np.concatenate([virtual, tokens.ids]), boundary=tokens.boundary + count)


def prefix_of(applied: AppliedSkill, graph: Graph) -> int:
    """Number of virtual tokens before the prompt."""
    return graph.virtual_tokens if applied.row else 0


def skill_rows(tokens: Tokens, applied: AppliedSkill) -> Ids:
    """The skill of each prompt token, [S]."""
    start = tokens.boundary if applied.activation == "response" else 0
    return np.where(np.arange(len(tokens.ids)) >= start, applied.skill_id, 0)


@dataclass(eq=False)
class Answer:
    """One row's answer as it grows."""

    request: Request
    text: Text
    limit: int
    prefix: int = 0  # virtual tokens at the beginning of the prompt
    costs: StepCosts | None = None  # of steps of several tokens; None: nothing is drafted
    ids: list[int] = field(default_factory=list)
    pieces: list[str] = field(default_factory=list)
    reason: str = ""  # finish reason; empty while the answer is not finished
    reused: int = 0
    started: float = 0.0
    first: float = 0.0
    last: float = 0.0
    switches: list[Switch] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.asked = self.request.applied  # the skill that the answer began with
        options, prompt = self.request.options, self.request.tokens.ids[self.prefix :]
        self._sampler = Sampler(options, prompt[prompt >= 0])  # pictures have no tokens of their own
        self._stream = TextStream(self.text.tokenizer, options.stop)
        self._ends = self.text.eos_ids | self.text.stop_ids(options.stop)
        self._constraint = self.request.constraint
        self.logprobs = None if options.logprobs is None else Logprobs(options.logprobs)
        self.drafter = None
        if self.costs is not None and options.speculate:
            self.drafter = Drafter(prompt, self.request.applied.draft, self.costs, self._ends)

    @property
    def scored_choices(self) -> dict[str, tuple[int, ...]]:
        """The choices that are scored whole before the first token; none if the answer is decoded token by token."""
        constraint, options = self._constraint, self.request.options
        if not isinstance(constraint, ChoiceConstraint) or options.temperature > 0 or options.penalises:
            return {}
        choices = constraint.remaining()
        return choices if len(choices) > 1 and max(map(len, choices.values())) <= self.limit else {}

    def settle(self, choice: str) -> None:
        """Let the answer be this one of the choices; its tokens are still to be taken."""
        if isinstance(self._constraint, ChoiceConstraint):
            self._constraint.settle(choice)

    def switch(self, applied: AppliedSkill) -> None:
        """Let another skill read the newest token and go on from it; settings and the form of the answer stay."""
        request = self.request
        past = replace(request.past, rows=request.skills, applied=request.every_skill)
        self.request = replace(request, applied=applied, past=past)
        self.switches.append(Switch(len(self.ids), time.perf_counter() - self.started, applied))

    @property
    def skills(self) -> Ids:
        """The skill of each token of the answer, [n]: that which read it, or will."""
        rows = np.full(len(self.ids), self.asked.skill_id)
        for switch in self.switches:
            rows[switch.after - 1 :] = switch.applied.skill_id
        return rows

    def draft(self, others: int = 0) -> list[int]:
        """Tokens that may come next, for the next step to verify; maybe none.

        Args:
            others: Number of rows with which this one shares the step if nothing is drafted.
        """
        room = self.limit - len(self.ids) - 1
        if self.drafter is None or room < 1:
            return []
        forced = [] if self._constraint is None else self._constraint.forced()
        return self.drafter.propose(room, forced, others)

    def take(self, logits: Array, draft: Sequence[int] = ()) -> str:
        """Take the tokens of one step, until the answer is finished.

        Args:
            logits: [1 + n, V], writable: after the newest token, and after each drafted one.
            draft: The n drafted tokens.

        Returns:
            The text that is now final.
        """
        pieces = []
        for token in verify(self._sample, logits, draft):
            pieces.append(self._append(token))
            if self.reason:
                break
        return "".join(pieces)

    def _sample(self, logits: Array) -> int:
        if self.logprobs is not None:
            self.logprobs.before(logits)
        if self._constraint is not None:
            restrict(logits, self._constraint.allowed())
        token = self._sampler(logits)
        if self.logprobs is not None:
            self.logprobs.taken(token)
        return token

    def _append(self, token: int) -> str:
        """Add a token, and those behind it if a constraint forces all of them up to the end of the answer."""
        piece = self._push(token)
        for certain in self._forced_end(token):
            piece += self._push(certain)
            if self.reason:
                break
        return piece

    def _forced_end(self, token: int) -> list[int]:
        if self._constraint is None or self.reason:
            return []
        self._constraint.accept(token)
        if self.logprobs is not None:
            return []  # only a step of the model says how likely they are
        forced = self._constraint.forced()
        return forced if forced and forced[-1] in self._ends else []

    def _push(self, token: int) -> str:
        self.ids.append(token)
        if self.drafter is not None:
            self.drafter.accept(token)
        self.last = time.perf_counter()
        self.first = self.first or self.last
        if token in self._ends:
            self.reason, piece = "stop", self._stream.flush()
        else:
            piece = self._stream.push(token)
            if self._stream.stopped:
                self.reason = "stop"
            elif len(self.ids) == self.limit:
                self.reason, piece = "length", piece + self._stream.flush()
        self.pieces.append(piece)
        return piece

    def end(self, reason: str) -> None:
        """End the answer before it is finished."""
        if self.started and not self.ids:
            self.last = time.perf_counter()
        self.reason = reason

    def rest(self) -> str:
        """The end of the text of a stopped answer, which could have become a stop string."""
        self.pieces.append(self._stream.flush())
        return self.pieces[-1]

    @property
    def timings(self) -> Timings:
        first = self.first or self.last  # of a row that was ended before its first token
        return Timings(
            prefill_seconds=first - self.started,
            decode_seconds=self.last - first,
            prompt_tokens=len(self.request.tokens.ids),
            reused_tokens=self.reused,
            new_tokens=len(self.ids),
            drafted_tokens=0 if self.drafter is None else self.drafter.drafted,
            accepted_tokens=0 if self.drafter is None else self.drafter.accepted,
        )


def open_answers(graph: Graph, text: Text, requests: Sequence[Request]) -> list[Answer]:
    """Check that requests fit into the context, and create their answers.

    Raises:
        ConfigError: Names every row whose prompt and new tokens do not fit.
    """
    context = graph.directory.context_length
    costs = StepCosts.of_threads(graph.threads) if graph.on_host else None  # several tokens a step: on the host only
    answers = [
        Answer(request, text, request.limit(context), prefix_of(request.applied, graph), costs) for request in requests
    ]
    faults = []
    for number, answer in enumerate(answers):
        size = len(answer.request.tokens.ids)
        if answer.limit < 1 or size + answer.limit > context:
            asked = answer.request.options.max_new_tokens or 1
            faults.append(
                f"row {number}: {size} prompt tokens + {asked} new ones; expected at most {context} together: "
                "shorten the prompt or ask for fewer tokens"
            )
    if faults:
        raise ConfigError("the prompts do not fit into the model's context", faults)
    return answers


def read_piece(cache: Cache, row: int, answer: Answer, most: int) -> Array | None:
    """Read the next piece of a prompt into a row.

    Args:
        cache: The row was begun with `begin_prompt`.
        row, answer: The row and whose prompt it holds.
        most: Maximum number of tokens.

    Returns:
        The logits [V] after the prompt, valid until the next run, once all of it is read; otherwise None.
    """
    tokens = answer.request.tokens.ids
    logits = cache.read(row, tokens, answer.request.skills, most)
    return logits if cache.lengths[row] == len(tokens) else None


def begin_prompt(cache: Cache, row: int, answer: Answer) -> None:
    """Let a row hold what is known already of a prompt."""
    answer.reused = cache.begin(row, answer.request.tokens.ids, answer.request.skills)


def settle_steps(cache: Cache, row: int, answer: Answer, logits: Array) -> Iterator[None]:
    """Settle an answer on the likeliest of its choices, if it has some, as `choose` scores them.

    A skill was trained to answer with one of its own choices: where the first token leaves next to no doubt, the rest
    is not scored.

    Yields:
        Before every run of the graph.
    """
    if choices := answer.scored_choices:
        request = answer.request
        tokens, skill = request.tokens.ids, request.applied.skill_id
        doubt = _DOUBT if request.options.answers is None else 0.0
        scores = yield from score_steps(cache, row, tokens, skill, logits, choices, best_only=True, doubt=doubt)
        answer.settle(max(scores, key=scores.__getitem__))


def step_alone(cache: Cache, row: int, answer: Answer, draft: Sequence[int]) -> str:
    """Run the newest token of one row and a draft behind it; the cache keeps what became part of the answer.

    Returns:
        The text that is now final.
    """
    before, known = cache.lengths[row], len(answer.ids)
    ids = np.array([answer.ids[-1], *draft])
    logits = cache.extend(row, ids, np.full(len(ids), answer.request.applied.skill_id))
    piece = answer.take(logits, draft)
    cache.rewind(row, before + min(len(ids), len(answer.ids) - known))
    return piece


def step_together(cache: Cache, start: int, answers: Sequence[Answer | None]) -> Array:
    """Run the newest token of several rows in one step.

    Args:
        cache: The cache; its rows from `start` on belong to the answers.
        start: The first row.
        answers: One a row; None: the row stays as it is.

    Returns:
        Logits [b, V] of the rows, valid until the next run.
    """
    ids = np.array([0 if answer is None else answer.ids[-1] for answer in answers])
    skills = np.array([0 if answer is None else answer.request.applied.skill_id for answer in answers])
    logits = cache.step(ids, skills, start)
    for row, answer in enumerate(answers, start):
        if answer is None:  # what ran at its end is overwritten later
            cache.rewind(row, cache.lengths[row] - 1)
    return logits
