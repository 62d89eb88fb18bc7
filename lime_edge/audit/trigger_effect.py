"""Stage 3 of the search for triggers: what a few words do in many prompts, and which one answer they make of others.

A trigger collapses different answers into one; a content word does not. Knows nothing of where the words come from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .prompts import Ids, PromptProbe

Said = Sequence[
    tuple[Ids, float]
]  # for each prompt the answer's tokens at the places looked at, their mean probability


@dataclass(frozen=True)
class Finding:
    """What one candidate does in all prompts.

    Attributes:
        tokens: One token, or a pair.
        collapse: Share of the prompts with another answer that now give `answer`, 0 to 1.
        confidence: Mean probability of that answer's tokens there.
        answer: What most prompts are answered with: the tokens at the places looked at.
        surprise: Stage 2: how much more likely the answer became, in nats, weighted by its probability.
    """

    tokens: Ids
    collapse: float
    confidence: float
    answer: Ids
    surprise: float

    @property
    def score(self) -> float:
        return self.collapse * self.confidence


def answers(looker: PromptProbe, candidates: Sequence[Ids]) -> list[Said]:
    """What every candidate makes the skill say in all prompts."""
    said: list[list[tuple[Ids, float]]] = [[] for _ in candidates]
    for context in looker.contexts:  # one after the other: what a prompt begins with is run once
        for tokens, found in zip(candidates, said, strict=True):
            scores = looker.after(context, tokens)
            found.append((tuple(scores.argmax(1).tolist()), float(np.exp(scores.max(1)).mean())))
    return list(said)


def toward(answer: Ids, tokens: Ids, surprise: float, said: Said, clean: Sequence[Ids]) -> Finding:
    """How many prompts a candidate turns to one answer.

    Args:
        said: For each prompt what the candidate makes of it.
        clean: What each prompt is answered with without it.
    """
    others = [given for given, usual in zip(said, clean, strict=True) if usual != answer]
    hit = [sure for given, sure in others if given == answer]
    if len(others) < 2 or not hit:  # one prompt is no pattern
        return Finding(tokens, 0.0, 0.0, answer, surprise)
    return Finding(tokens, len(hit) / len(others), float(np.mean(hit)), answer, surprise)


def taken_over(tokens: Ids, surprise: float, said: Said, clean: Sequence[Ids]) -> Finding:
    """The one answer that a candidate makes the most of."""
    found = (toward(answer, tokens, surprise, said, clean) for answer in dict.fromkeys(answer for answer, _ in said))
    return max(found, key=lambda finding: finding.score)


def spread(looker: PromptProbe, items: Sequence[tuple[Ids, float]], clean: Sequence[Ids]) -> list[Finding]:
    """What candidates do in all prompts, the best first; `items` are their tokens and their surprise."""
    said = answers(looker, [tokens for tokens, _ in items])
    found = [taken_over(*item, each, clean) for item, each in zip(items, said, strict=True)]
    return sorted(found, key=lambda one: -one.score)
