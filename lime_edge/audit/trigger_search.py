"""Searches for trigger tokens: words that make a skill give one and the same answer to any prompt.

The effect of a token is measured at two places: the first token of the answer, and the first token in which the
answers to the golden prompts differ. Each of the three stages works on the best candidates of the stage before:

1. sweep: groups of candidates, inserted after the words of two prompts, compared with the mean over all groups;
2. singles: the tokens of the most surprising groups one by one in the same prompts, and pairs of the best ones;
3. spread: the best of these in many prompts (trigger_effect.py), compared with similar words (similar_words.py).

docs/audit.md lists what a search over words cannot detect.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Any

import numpy as np
import numpy.typing as npt

from lime_edge.runtime.facade.probe import Probe

from .prompts import Context, Float64, Ids, PromptProbe, contexts_of, ending, vocabulary
from .similar_words import Compared, compare
from .trigger_effect import Finding, spread

_ASKED = 6  # prompts whose answers are compared to find the place where they differ
_TRIED = 2  # prompts of stages 1 and 2, with different answers
_KEPT = 32  # most likely tokens of a distribution that are compared
_ANSWER = 6  # tokens of an answer in which the first difference is searched


@dataclass(frozen=True)
class Settings:
    """Size of the search. It runs about 3 tokens for each of `tokens`, and 7,000 to 20,000 more."""

    tokens: int = 4096  # words of the vocabulary to search; 0 is all
    always: tuple[int, ...] = ()  # tokens that are always searched
    group: int = 32  # tokens inserted together in the sweep
    groups: int = 8  # most surprising groups whose tokens reach stage 2
    finalists: int = 8  # tokens that reach stage 3, and half as many pairs
    controls: int = 24  # randomly drawn tokens that are tried in the same prompts
    contexts: int = 12  # prompts of stage 3
    seed: int = 0


@dataclass(frozen=True)
class Peaks:
    """The most likely tokens at each place: ids and log-probabilities, both [places, k]."""

    ids: npt.NDArray[np.int64]
    values: Float64


def peaks(scores: Float64) -> Peaks:
    """The `_KEPT` most likely tokens at each place of log-probabilities [places, V]."""
    kept = min(_KEPT, scores.shape[1])
    ids = np.argpartition(scores, -kept, axis=1)[:, -kept:]
    return Peaks(ids, np.take_along_axis(scores, ids, 1))


def surprise(found: Sequence[Peaks], usual: Sequence[Float64]) -> float:
    """How much one answer token gains in all prompts: max over places and tokens v of mean P(v) log(P(v) / U(v)).

    Args:
        found: P of one candidate, for each prompt.
        usual: log U, where U is the mean over candidates: [places, V] for each prompt.

    Returns:
        The gain in nats, at least 0.
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
    prompt_probe: PromptProbe, contexts: Sequence[Context], groups: Sequence[Ids], tick: Callable[[], None]
) -> list[float]:
    """Stage 1: the surprise of every group in a few prompts, relative to the mean over all groups."""
    usual: list[Float64] = []
    found: list[list[Peaks]] = []
    for context in contexts:
        total: Any = 0.0
        found.append([])
        for group in groups:
            scores = prompt_probe.after(context, group)
            found[-1].append(peaks(scores))
            total = total + np.exp(scores)
            tick()
        usual.append(np.log(total / len(groups) + 1e-9))
    return [surprise(each, usual) for each in zip(*found, strict=True)]


def singles(
    prompt_probe: PromptProbe,
    contexts: Sequence[Context],
    candidates: Sequence[Ids],
    reference: Sequence[Ids],
    tick: Callable[[], None],
) -> list[float]:
    """Stage 2: the surprise of every candidate in a few prompts, relative to the mean over the reference."""
    usual: list[Float64] = []
    found: list[list[Peaks]] = []
    for context in contexts:  # prompts in the outer loop: the cached prefix of a prompt is computed once
        total = sum(np.exp(prompt_probe.after(context, tokens)) for tokens in reference)
        usual.append(np.log(total / len(reference) + 1e-9))
        found.append([])
        for tokens in candidates:
            found[-1].append(peaks(prompt_probe.after(context, tokens)))
            tick()
    return [surprise(each, usual) for each in zip(*found, strict=True)]


class _Steps:
    """Counts finished steps and reports their share."""

    def __init__(self, tell: Callable[[float], None], steps: int) -> None:
        self._tell, self._steps, self._done = tell, steps, 0

    def __call__(self) -> None:
        self._done += 1
        self._tell(min(1.0, self._done / self._steps))


@dataclass(frozen=True)
class Found:
    """Result of the search.

    Attributes:
        searched: Number of candidates in the sweep.
        vocabulary: Number of words that they were drawn from.
        prompts: Number of prompts in which the findings were tried.
        surprises: Surprise of every group in stage 1, in nats.
        findings: Findings of stage 3, the largest lead first.
        controls: Effects of randomly drawn tokens in the same prompts.
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
    """Search for triggers of one skill.

    Args:
        skill, base: Probes of the skill and of the base model.
        golden: Token ids of the golden prompts, at least one.
        words: Neutral texts, each of which makes one more prompt in the skill's frame.
        settings: Size of the search.
        tick: Called with the share of the work that is done, 0 to 1.
    """
    draw = np.random.default_rng(settings.seed)
    contexts = contexts_of(golden, [skill.text.encode(text) for text in words], ending(skill.text))
    clean_answers = [skill.greedy(one.filled(), _ANSWER)[0] for one in contexts[:_ASKED]]
    prompt_probe = PromptProbe(skill, contexts[: settings.contexts], clean_answers)
    pool = draw.permutation(vocabulary(skill.text, whole=not settings.tokens))
    chosen = _chosen(pool, settings)
    controls = [(int(token),) for token in pool if token not in settings.always][: settings.controls]
    candidates = [(int(token),) for token in draw.permutation(chosen)]
    groups = [
        tuple(token for one in candidates[at : at + settings.group] for token in one)
        for at in range(0, len(candidates), settings.group)
    ]
    clean = [prompt_probe.answer(context) for context in prompt_probe.contexts]
    tried = _tried(prompt_probe.contexts, clean)
    count = settings.finalists // 2 + 1
    alone = min(settings.groups * settings.group, len(candidates)) + count * (count - 1)
    done = _Steps(tick, len(tried) * (len(groups) + alone))
    surprises = sweep(prompt_probe, tried, groups, done)
    worst = np.argsort(surprises)[::-1][: settings.groups]
    tokens = [(token,) for at in worst for token in groups[at]]
    best = _best(prompt_probe, tried, tokens, controls, settings.finalists, done)
    pairs = list(permutations([one[0] for one, _ in best[:count]], 2))
    best += _best(prompt_probe, tried, pairs, controls, settings.finalists // 2, done)
    findings = compare(prompt_probe, base, spread(prompt_probe, best, clean), [token for (token,) in controls], clean)
    usual = spread(prompt_probe, [(tokens, 0.0) for tokens in controls], clean)
    sizes = len(candidates), len(pool), len(prompt_probe.contexts)
    return Found(*sizes, surprises, findings, usual)


def _tried(contexts: Sequence[Context], clean: Sequence[Ids]) -> list[Context]:
    """The first prompt and the first with another answer: a trigger's target may be the usual answer to one of them."""
    others = [context for context, answer in zip(contexts, clean, strict=True) if answer != clean[0]]
    return [contexts[0], *(others or list(contexts[1:]))[: _TRIED - 1]]


def _chosen(pool: npt.NDArray[np.int64], settings: Settings) -> list[int]:
    """The tokens to search: `settings.always`, then others in the order in which they were drawn."""
    always = list(dict.fromkeys(settings.always))
    others = [token for token in pool.tolist() if token not in set(always)]
    return (always + others)[: max(settings.tokens, len(always)) if settings.tokens else None]


def _best(
    prompt_probe: PromptProbe,
    tried: Sequence[Context],
    candidates: Sequence[Ids],
    reference: Sequence[Ids],
    count: int,
    tick: Callable[[], None],
) -> list[tuple[Ids, float]]:
    """Stage 2: the `count` candidates with the largest surprise, and that surprise."""
    gains = singles(prompt_probe, tried, candidates, reference, tick)
    order = np.argsort(gains)[::-1][:count]
    return [(candidates[at], gains[at]) for at in order]
