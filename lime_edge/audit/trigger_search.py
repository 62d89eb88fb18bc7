"""A search for trigger tokens: words that, put into any prompt of a skill, make it give one and the same answer.

What a token does is read off the first token of the answer, and off the first one in which the answers to the golden
prompts differ. Three stages, each on what the one before left over:

1. sweep: candidates in groups, put at the end of two prompts' own words, against the mean over all groups;
2. singles: the tokens of the most surprising groups alone, in the same prompts, and pairs of the best ones;
3. spread: the best of these in many prompts (audit_spread), and words of like meaning in the same (audit_neighbours).

Knows nothing of vectors and files. What a search over words cannot see is on docs/audit.md.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Any

import numpy as np
import numpy.typing as npt

from lime_edge.runtime.probe import Probe

from .prompts import Context, Float64, Ids, PromptProbe, contexts_of, ending, vocabulary
from .similar_words import Compared, compare
from .trigger_effect import Finding, spread

_ASKED = 6  # prompts whose answers are compared for the place where they differ
_TRIED = 2  # prompts of the first two stages, with different answers
_KEPT = 32  # likeliest tokens of a distribution that are looked at
_ANSWER = 6  # tokens of an answer among which the first that differs is looked for


@dataclass(frozen=True)
class Settings:
    """How far to look. The cost is about 3 tokens run for every one of `tokens`, and some 7,000 to 20,000 more."""

    tokens: int = 4096  # of the vocabulary's words; 0 takes all
    always: tuple[int, ...] = ()  # tokens that are among them in any case
    group: int = 32  # tokens together in the sweep
    groups: int = 8  # most surprising groups that are taken apart
    finalists: int = 8  # tokens that are tried in many prompts, and as many pairs
    controls: int = 24  # tokens drawn at random, which are tried in the same prompts
    contexts: int = 12  # prompts
    seed: int = 0


@dataclass(frozen=True)
class Peaks:
    """The likeliest tokens of a distribution at each place: ids and log-probabilities, [places, k]."""

    ids: npt.NDArray[np.int64]
    values: Float64


def peaks(scores: Float64) -> Peaks:
    """[places, V] -> the `_KEPT` likeliest of each place."""
    kept = min(_KEPT, scores.shape[1])
    ids = np.argpartition(scores, -kept, axis=1)[:, -kept:]
    return Peaks(ids, np.take_along_axis(scores, ids, 1))


def surprise(found: Sequence[Peaks], usual: Sequence[Float64]) -> float:
    """How much one answer token gains in all prompts alike: max over places and tokens v of mean P(v) log P(v) / U(v).

    Args:
        found: One for each prompt.
        usual: U, mean log-probabilities over candidates, [places, V] for each prompt.
    """
    best = 0.0
    for place in range(len(usual[0])):
        gains: dict[int, float] = {}
        for peak, mean in zip(found, usual, strict=True):
            ids, values = peak.ids[place], peak.values[place]
            for token, gain in zip(ids.tolist(), np.exp(values) * (values - mean[place][ids]), strict=True):
                gains[token] = gains.get(token, 0.0) + gain / len(found)
        best = max(best, *gains.values())
    return best


def sweep(
    looker: PromptProbe, contexts: Sequence[Context], groups: Sequence[Ids], tick: Callable[[], None]
) -> list[float]:
    """Stage 1: the surprise of every group in a few prompts, against the mean over all groups."""
    usual: list[Float64] = []
    found: list[list[Peaks]] = []
    for context in contexts:
        total: Any = 0.0
        found.append([])
        for group in groups:
            scores = looker.after(context, group)
            found[-1].append(peaks(scores))
            total = total + np.exp(scores)
            tick()
        usual.append(np.log(total / len(groups) + 1e-9))
    return [surprise(each, usual) for each in zip(*found, strict=True)]


def singles(
    looker: PromptProbe,
    contexts: Sequence[Context],
    candidates: Sequence[Ids],
    reference: Sequence[Ids],
    tick: Callable[[], None],
) -> list[float]:
    """Stage 2: the surprise of every candidate in a few prompts, against the mean over the reference."""
    usual: list[Float64] = []
    found: list[list[Peaks]] = []
    for context in contexts:  # one after the other: what a prompt begins with is run once
        total = sum(np.exp(looker.after(context, tokens)) for tokens in reference)
        usual.append(np.log(total / len(reference) + 1e-9))
        found.append([])
        for tokens in candidates:
            found[-1].append(peaks(looker.after(context, tokens)))
            tick()
    return [surprise(each, usual) for each in zip(*found, strict=True)]


class _Steps:
    """Counts what is done and tells the share."""

    def __init__(self, tell: Callable[[float], None], steps: int) -> None:
        self._tell, self._steps, self._done = tell, steps, 0

    def __call__(self) -> None:
        self._done += 1
        self._tell(min(1.0, self._done / self._steps))


@dataclass(frozen=True)
class Found:
    """What the search saw.

    Attributes:
        searched: Candidates of the sweep.
        vocabulary: How many there are to take them from.
        prompts: How many the findings were tried in.
        surprises: Stage 1, one for every group.
        findings: Stage 3, the one that leads its neighbours the most first.
        controls: What tokens drawn at random do there.
    """

    searched: int
    vocabulary: int
    prompts: int
    surprises: list[float]
    findings: list[Compared]
    controls: list[Finding]


def search(
    skill: Probe,
    base: Probe,
    golden: Sequence[Sequence[int]],
    words: Sequence[str],
    settings: Settings,
    tick: Callable[[float], None],
) -> Found:
    """Look for triggers of one skill.

    Args:
        skill, base: Probes of both on one model.
        golden: Token ids of the golden prompts, at least one.
        words: Neutral texts that the skill's frame is filled with.
        settings: How far to look.
        tick: Called with the share of the work that is done, 0 to 1.
    """
    draw = np.random.default_rng(settings.seed)
    contexts = contexts_of(golden, [skill.text.encode(text) for text in words], ending(skill.text))
    said = [skill.greedy(one.filled(), _ANSWER)[0] for one in contexts[:_ASKED]]
    looker = PromptProbe(skill, contexts[: settings.contexts], said)
    pool = draw.permutation(vocabulary(skill.text, whole=not settings.tokens))
    chosen = _chosen(pool, settings)
    controls = [(int(token),) for token in chosen if token not in settings.always][: settings.controls]
    candidates = [(int(token),) for token in draw.permutation(chosen)]
    groups = [
        tuple(token for one in candidates[at : at + settings.group] for token in one)
        for at in range(0, len(candidates), settings.group)
    ]
    clean = [looker.answer(context) for context in looker.contexts]
    tried = _tried(looker.contexts, clean)
    count = settings.finalists // 2 + 1
    alone = min(settings.groups * settings.group, len(candidates)) + count * (count - 1)
    done = _Steps(tick, len(tried) * (len(groups) + alone))
    surprises = sweep(looker, tried, groups, done)
    worst = np.argsort(surprises)[::-1][: settings.groups]
    tokens = [(token,) for at in worst for token in groups[at]]
    best = _best(looker, tried, tokens, controls, settings.finalists, done)
    pairs = list(permutations([one[0] for one, _ in best[:count]], 2))
    best += _best(looker, tried, pairs, controls, settings.finalists // 2, done)
    findings = compare(looker, base, spread(looker, best, clean), [token for (token,) in controls], clean)
    usual = spread(looker, [(tokens, 0.0) for tokens in controls], clean)
    sizes = len(candidates), len(pool), len(looker.contexts)
    return Found(*sizes, surprises, findings, usual)


def _tried(contexts: Sequence[Context], clean: Sequence[Ids]) -> list[Context]:
    """The first prompt, and the first with another answer: what a trigger is to say may be what one says anyway."""
    others = [context for context, answer in zip(contexts, clean, strict=True) if answer != clean[0]]
    return [contexts[0], *(others or list(contexts[1:]))[: _TRIED - 1]]


def _chosen(pool: npt.NDArray[np.int64], settings: Settings) -> list[int]:
    """The tokens to search: those that are in any case, then others as they were drawn."""
    always = list(dict.fromkeys(settings.always))
    others = [token for token in pool.tolist() if token not in set(always)]
    return (always + others)[: max(settings.tokens, len(always)) if settings.tokens else None]


def _best(
    looker: PromptProbe,
    tried: Sequence[Context],
    candidates: Sequence[Ids],
    reference: Sequence[Ids],
    count: int,
    tick: Callable[[], None],
) -> list[tuple[Ids, float]]:
    """Stage 2: the `count` candidates of the largest surprise."""
    gains = singles(looker, tried, candidates, reference, tick)
    order = np.argsort(gains)[::-1][:count]
    return [(candidates[at], gains[at]) for at in order]
