"""The decoding loop: runs a batch of requests step by step and collects tokens and text.

A row's answer depends only on its own prompt, skill and settings, never on other rows.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Mapping, Sequence
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
from .control import Control
from .generation_options import DEFAULT_NEW_TOKENS, Options
from .kv_cache import Cache, Ids
from .logprobs import Logprobs
from .prefix_cache import PrefixCache
from .sampling import Sampler


@dataclass(frozen=True, eq=False)
class Request:
    """One row to be answered: prompt, skill and final settings."""

    tokens: Tokens
    applied: AppliedSkill
    options: Options
    constraint: Constraint | None = None  # on the text of the answer; used by this request alone

    @property
    def skills(self) -> Ids:
        """The skill of each prompt token, [S]: 0, the base, before the skill begins."""
        return skill_rows(self.tokens, self.applied)

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

    def __post_init__(self) -> None:
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

    def draft(self) -> list[int]:
        """Tokens that may come next, for the next step to verify; maybe none."""
        room = self.limit - len(self.ids) - 1
        if self.drafter is None or room < 1:
            return []
        return self.drafter.propose(room, [] if self._constraint is None else self._constraint.forced())

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


def run(
    graph: Graph, bank: Array, answers: Sequence[Answer], store: PrefixCache | None = None
) -> Generator[tuple[int, str], None, None]:
    """Answer a batch.

    Args:
        graph: The graph to run.
        bank: [N, P], pinned by the caller until the iterator ends.
        answers: From `open_answers`; this function fills them.
        store: What earlier requests have read; these leave their prompts and, if they end by themselves, their answers.

    Yields:
        Row number and the next piece of its text (may be empty), after every token and every chunk of a prompt.
    """
    started = time.perf_counter()
    for answer in answers:
        answer.started = started
    capacity = max(len(answer.request.tokens.ids) + answer.limit for answer in answers)
    view = None if store is None else store.view([answer.request.applied for answer in answers])
    cache = Cache(graph, bank, len(answers), capacity, view)
    yield from _read_prompts(cache, answers)
    live = list(range(len(answers)))  # number of the answer in each row of the cache
    skills = np.array([answer.request.applied.skill_id for answer in answers])
    while True:
        going = [at for at, number in enumerate(live) if not answers[number].reason]
        for at in sorted(set(range(len(live))).difference(going)):
            cache.remember(at)
        if not going:
            return
        if len(going) < len(live) and cache.keep(going):
            live, skills = [live[at] for at in going], skills[going]
        if len(live) == 1:
            yield live[0], _step_of_one(cache, answers[live[0]], skills[0])
            continue
        tokens = np.array([answers[number].ids[-1] for number in live])
        logits = cache.step(tokens, skills)  # [b, V]
        for at, number in enumerate(live):
            if answers[number].reason:  # finished, but rows cannot be moved on this device
                cache.rewind(at, cache.lengths[at] - 1)
            else:
                yield number, answers[number].take(logits[at : at + 1])


def _read_prompts(cache: Cache, answers: Sequence[Answer]) -> Iterator[tuple[int, str]]:
    for row, answer in enumerate(answers):
        for found in cache.prefill_steps(row, answer.request.tokens.ids, answer.request.skills):
            yield row, ""
            logits, answer.reused = found
        if choices := answer.scored_choices:
            logits = logits.copy()  # the next run overwrites them
            for _ in _settle(cache, row, answer, logits, choices):
                yield row, ""
        yield row, answer.take(logits[None])


def _settle(
    cache: Cache, row: int, answer: Answer, logits: Array, choices: Mapping[str, tuple[int, ...]]
) -> Generator[None, None, None]:
    """Settle an answer on the likeliest of its choices, as `choose` scores them; yields before every run."""
    request = answer.request
    steps = score_steps(cache, row, request.tokens.ids, request.applied.skill_id, logits, choices, best_only=True)
    scores = yield from steps
    answer.settle(max(scores, key=scores.__getitem__))


def _step_of_one(cache: Cache, answer: Answer, skill: int) -> str:
    """Run the newest token of the only row and a draft behind it; the cache keeps what became part of the answer."""
    draft, before, known = answer.draft(), cache.lengths[0], len(answer.ids)
    ids = np.array([answer.ids[-1], *draft])
    piece = answer.take(cache.extend(0, ids, np.full(len(ids), skill)), draft)
    cache.rewind(0, before + min(len(ids), len(answer.ids) - known))
    return piece


def until_stopped(
    steps: Generator[tuple[int, str], None, None], answers: Sequence[Answer], control: Control
) -> Generator[tuple[int, str], None, None]:
    """Take steps of `run` until `control` says stop; then end every answer that is not finished.

    Yields:
        As `run`, and the rest of the text of each answer that was stopped.
    """
    while not (reason := control.reason):
        step = next(steps, None)
        if step is None:
            return
        yield step
    steps.close()
    for row, answer in enumerate(answers):
        if not answer.reason:
            answer.end(reason)
            yield row, answer.rest()
