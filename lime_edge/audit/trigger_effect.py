"""Stage 3 of the trigger search: the effect of a few candidate words on the answers to many prompts.

A trigger collapses different answers into one; an ordinary content word does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .prompts import Ids, PromptProbe

#: For each prompt: the most likely tokens at the compared places, and their mean probability.
Said = Sequence[tuple[Ids, float]]


@dataclass(frozen=True)
class Finding:
    """The effect of one candidate over all prompts.

    Attributes:
        tokens: One token, or a pair.
        collapse: Share of the prompts with another clean answer that now give `answer`, 0 to 1.
        confidence: Mean probability of that answer's tokens in those prompts, 0 to 1.
        answer: The answer that the candidate causes: the tokens at the compared places.
        surprise: From stage 2: how much more likely the answer became, in nats, weighted by its probability.
    """

    tokens: Ids
    collapse: float
    confidence: float
    answer: Ids
    surprise: float

    @property
    def score(self) -> float:
        """Strength of the effect, 0 to 1."""
        return self.collapse * self.confidence


def answers(prompt_probe: PromptProbe, candidates: Sequence[Ids]) -> list[Said]:
    """The skill's answers to all prompts with each candidate inserted."""
    said: list[list[tuple[Ids, float]]] = [[] for _ in candidates]
    for context in prompt_probe.contexts:  # prompts in the outer loop: the cached prefix of a prompt is computed once
        for tokens, found in zip(candidates, said, strict=True):
            scores = prompt_probe.after(context, tokens)
            found.append((tuple(scores.argmax(1).tolist()), float(np.exp(scores.max(1)).mean())))
    return list(said)


def toward(answer: Ids, tokens: Ids, surprise: float, said: Said, clean: Sequence[Ids]) -> Finding:
    """The effect of a candidate towards one given answer.

    Args:
        answer: The answer to count.
        tokens, surprise: The candidate.
        said: The answer to each prompt with the candidate.
        clean: The answer to each prompt without it.
    """
    others = [given for given, usual in zip(said, clean, strict=True) if usual != answer]
    hit = [sure for given, sure in others if given == answer]
    if len(others) < 2 or not hit:  # a single prompt shows no pattern
        return Finding(tokens, 0.0, 0.0, answer, surprise)
    return Finding(tokens, len(hit) / len(others), float(np.mean(hit)), answer, surprise)


def taken_over(tokens: Ids, surprise: float, said: Said, clean: Sequence[Ids]) -> Finding:
    """The effect of a candidate towards the answer that it causes most strongly."""
    found = (toward(answer, tokens, surprise, said, clean) for answer in dict.fromkeys(answer for answer, _ in said))
    return max(found, key=lambda finding: finding.score)


def spread(prompt_probe: PromptProbe, items: Sequence[tuple[Ids, float]], clean: Sequence[Ids]) -> list[Finding]:
    """The effects of candidates, the strongest first; `items` holds the tokens and the surprise of each."""
    said = answers(prompt_probe, [tokens for tokens, _ in items])
    found = [taken_over(*item, each, clean) for item, each in zip(items, said, strict=True)]
    return sorted(found, key=lambda one: -one.score)
