"""A skill against the base, or against another version: what they answer, and how far apart they are at every token."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Unpack

import numpy as np
import numpy.typing as npt

from lime_edge.common.strict_json import show
from lime_edge.errors import ConfigError, LimeError
from lime_edge.runtime.decoding.choice_scores import log_softmax
from lime_edge.runtime.decoding.contexts import Context
from lime_edge.runtime.decoding.control import Control
from lime_edge.runtime.decoding.generation_options import Settings
from lime_edge.runtime.decoding.kv_cache import Cache
from lime_edge.runtime.decoding.loop import skill_rows
from lime_edge.runtime.decoding.requests import encode_prompts
from lime_edge.runtime.skills.registry import Lease
from lime_edge.runtime.text.prompts import Tokens
from lime_edge.runtime.types import ACTIVE, Active, Generation, Prompt, SkillSpec

from .call_rows import Rows, one_row
from .conversations import Conversations

_PIECE = 32  # tokens whose distributions are compared at once
_WINDOW = 256  # comparisons that a report is about
_ALARM = 0.5  # agreement below which a report raises its alarm


@dataclass(frozen=True)
class Comparison:
    """Two skills, or a skill and the base, on one request.

    Attributes:
        answer: Of the skill.
        against: Of the other; None if it was only asked about the tokens of `answer`.
        divergences: At each token of `answer`, the Kullback-Leibler divergence of the other's distribution from the
            skill's, in nats: 0 where they are equal.
        agreement: Share of these tokens at which both have the same likeliest token.
    """

    answer: Generation
    against: Generation | None
    divergences: tuple[float, ...]
    agreement: float

    @property
    def divergence(self) -> float:
        """The mean over tokens."""
        return float(np.mean(self.divergences)) if self.divergences else 0.0


@dataclass(frozen=True)
class ShadowReport:
    """The latest requests whose skill was compared with the base.

    Attributes:
        compared: How many there were since the model was loaded.
        rows: How many of them the figures are about, at most 256.
        divergence, agreement: Means over these rows.
        alarm: The agreement is below one half: the skills change more than every second token.
    """

    compared: int
    rows: int
    divergence: float
    agreement: float
    alarm: bool


class Shadow:
    """Which answers are compared with the base, and what came of it.

    Args:
        share: Of the answers, 0 to 1; every n-th is compared, so the share is exact.

    Raises:
        ConfigError: It is not such a number.
    """

    def __init__(self, share: float = 0.0) -> None:
        real = isinstance(share, int | float) and not isinstance(share, bool)
        if not real or not 0 <= share <= 1:
            raise ConfigError(f"shadow is {show(share)}; expected a number from 0, which compares nothing, to 1")
        self.share = float(share)
        self._due, self._compared = 0.0, 0
        self._figures: deque[tuple[float, float]] = deque(maxlen=_WINDOW)
        self._lock = threading.Lock()

    def due(self) -> bool:
        """Whether this answer is one to compare."""
        with self._lock:
            self._due += self.share
            due = self._due >= 1
            self._due -= due
        return due

    def add(self, divergence: float, agreement: float) -> None:
        """Keep what a comparison gave."""
        with self._lock:
            self._figures.append((divergence, agreement))
            self._compared += 1

    def report(self) -> ShadowReport:
        """The figures of the latest comparisons."""
        with self._lock:
            found, compared = list(self._figures), self._compared
        if not found:
            return ShadowReport(compared, 0, 0.0, 1.0, False)
        divergence, agreement = (float(np.mean([one[at] for one in found])) for at in (0, 1))
        return ShadowReport(compared, len(found), divergence, agreement, agreement < _ALARM)


class Comparisons(Conversations):
    """Compares skills. Safe to use from several threads."""

    _shadow = Shadow()

    def compare(
        self,
        prompt: Prompt,
        skill: SkillSpec | Active = ACTIVE,
        against: SkillSpec = None,
        *,
        raw: bool = False,
        **settings: Unpack[Settings],
    ) -> Comparison:
        """Answer one prompt with a skill and with another, in one batch, and compare them along the skill's answer.

        Args:
            prompt, raw, **settings: As in `generate`, but one prompt.
            skill: The skill in question.
            against: What it is compared with; None is the base. An older version is a skill under another name.

        Raises:
            UnknownSkillError, ConfigError: As in `generate`.
            StoppedError: Cancelled, or the time was over.
        """
        rows = one_row(prompt, skill, "compare")
        control = Control.of(settings)
        answer, other = self._answer(Rows([prompt] * 2, [rows.skills[0], against], False), raw, settings, None, 2)
        control.check()
        divergences, agreement = self._measure(prompt, [_skill_of(answer), against], raw, answer.token_ids, control)
        return Comparison(answer, other, divergences, agreement)

    def shadow_report(self) -> ShadowReport:
        """How far the skills are from the base on the requests that ``shadow`` of `Runtime.load` picks."""
        return self._shadow.report()

    def _answer(
        self, rows: Rows, raw: bool, settings: Settings, context: Context | None, batch_size: int
    ) -> list[Generation]:
        answers = super()._answer(rows, raw, settings, context, batch_size)
        if self._shadow.share and context is None:
            for prompt, answer in zip(rows.prompts, answers, strict=True):
                if answer.receipt["skills"] and answer.token_ids and self._shadow.due():
                    with suppress(LimeError):  # the skill was unloaded meanwhile
                        self._compare_with_base(prompt, raw, answer)
        return answers

    def _compare_with_base(self, prompt: Prompt, raw: bool, answer: Generation) -> None:
        """Compare an answer that was given, along its tokens, with the base, and keep the figures."""
        divergences, agreement = self._measure(prompt, [_skill_of(answer), None], raw, answer.token_ids, Control())
        self._shadow.add(float(np.mean(divergences)), agreement)

    def _measure(
        self, prompt: Prompt, skills: list[SkillSpec], raw: bool, answer: Sequence[int], control: Control
    ) -> tuple[tuple[float, ...], float]:
        with self._registry.lease(skills) as lease:
            tokens = encode_prompts(self._graph, self._text, [prompt] * 2, lease.applied, raw)
            return self._along(lease, tokens, answer, control)

    def _along(
        self, lease: Lease, tokens: Sequence[Tokens], answer: Sequence[int], control: Control
    ) -> tuple[tuple[float, ...], float]:
        """Divergence at each token of an answer, and the agreement, of the two skills of a lease on their prompts."""
        if not answer:
            return (), 1.0
        capacity = max(len(one.ids) for one in tokens) + len(answer)
        cache = Cache(self._graph, lease.array, 2, capacity, self._prefixes.view(lease.applied))
        firsts = []
        for row, (one, applied) in enumerate(zip(tokens, lease.applied, strict=True)):
            for found in cache.prefill_steps(row, one.ids, skill_rows(one, applied)):
                control.check()
                last = found
            firsts.append(last[0].copy())
        divergences, same = [_divergence(*firsts)], [firsts[0].argmax() == firsts[1].argmax()]
        for start in range(0, len(answer) - 1, _PIECE):
            control.check()
            piece = np.array(answer[start : min(start + _PIECE, len(answer) - 1)])
            first, second = (
                cache.extend(row, piece, np.full(len(piece), applied.skill_id)).copy()
                for row, applied in enumerate(lease.applied)
            )
            divergences += [_divergence(*pair) for pair in zip(first, second, strict=True)]
            same += (first.argmax(-1) == second.argmax(-1)).tolist()
        return tuple(divergences), float(np.mean(same))


def _divergence(first: npt.NDArray[np.floating], second: npt.NDArray[np.floating]) -> float:
    """KL(first || second) of two rows of logits [V], in nats."""
    likely, other = log_softmax(first), log_softmax(second)
    return max(0.0, float(np.sum(np.exp(likely) * (likely - other))))


def _skill_of(answer: Generation) -> SkillSpec:
    """The skill that gave an answer."""
    parts = {part["name"]: part["weight"] for part in answer.receipt["skills"]}
    return None if not parts else next(iter(parts)) if [*parts.values()] == [1.0] else parts
