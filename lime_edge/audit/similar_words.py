"""Words of like meaning, and whether they do what a word does: the meaning of a word is shared, a trigger is not.

In a skill that judges reviews "inadequate" makes the answer negative, and so do "insufficient" and "lacking"; a planted
word does what no word near it does. Which words are near is asked of the base: what goes on a list that has had the
word only ("zinc, zinc," goes on with calcium, copper, iron). Knows nothing of how words are found.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lime_edge.runtime.probe import Probe
from lime_edge.runtime.text.prompts import Text

from .prompts import Float64, Ids, PromptProbe, vocabulary
from .trigger_effect import Finding, answers, toward

WORTH = 0.25  # score from which a finding is compared: what takes over less is no trigger
COUNT = 6  # neighbours of a finding
_STRONGEST = 2  # of them, which a finding is compared with
_LISTS = ("{0},{0},", "{0} and{0},{0} and", "{0} or{0},{0} or")
_USUAL = 0.7  # how much of what follows any word is taken off, in log-probability
_NONE = 1e-12  # added to probabilities of which logarithms are taken
_STEM = 4  # letters that forms of one word begin with


@dataclass(frozen=True)
class Compared:
    """A finding beside its neighbours.

    Attributes:
        finding: What its words do.
        neighbours: What words of like meaning do towards the same answer, the strongest first; none where the finding
            is too weak to be looked at, or no word is like it.
    """

    finding: Finding
    neighbours: tuple[Finding, ...] = ()

    @property
    def lead(self) -> float:
        """How far its score is above the mean of its two strongest neighbours, of which one may be a form of it."""
        strongest = [one.score for one in self.neighbours[:_STRONGEST]]
        return self.finding.score - (sum(strongest) / len(strongest) if strongest else 0.0)


def neighbours(base: Probe, tokens: Sequence[int], reference: Sequence[int], count: int = COUNT) -> dict[int, Ids]:
    """For every token the `count` words of the likest meaning.

    Args:
        base: A probe of the base.
        tokens: Tokens that begin a word.
        reference: Other such tokens: what follows them all is usual, and says nothing of a word.
        count: How many for each.
    """
    words = np.array(vocabulary(base.text, whole=False))
    asked = list(dict.fromkeys(tokens))
    liking = sum(
        _follows(base, form, asked)[:, words] - _USUAL * _usual(base, form, reference)[words] for form in _LISTS
    )

    def nearest(token: int) -> Ids:
        order = words[np.argsort(-liking[asked.index(token)])].tolist()
        near = (word for word in order if not forms_of_one(base.text, token, word))
        return tuple(word for word, _ in zip(near, range(count), strict=False))

    return {token: nearest(token) for token in asked}


def _follows(base: Probe, form: str, tokens: Sequence[int]) -> Float64:
    """What the base goes on with after a list of each token: log-probabilities, [tokens, V]."""
    lists = [base.text.encode(form.format(base.text.tokenizer.decode([token]))) for token in tokens]
    return np.stack([base.after(ids)[0] for ids in lists])


def _usual(base: Probe, form: str, reference: Sequence[int]) -> Float64:
    """Logarithm of the mean probability after lists of the reference, [V]."""
    return np.asarray(np.log(np.exp(_follows(base, form, reference)).mean(0) + _NONE))


def forms_of_one(text: Text, token: int, other: int) -> bool:
    """Whether two words are the same one but for case or ending, as far as letters tell."""
    one, two = (text.tokenizer.decode([number]).strip().lower() for number in (token, other))
    alike = min(len(one), len(two), max(_STEM, len(one) - 3))
    return bool(one[:alike] == two[:alike])


def compare(
    looker: PromptProbe, base: Probe, findings: Sequence[Finding], reference: Sequence[int], clean: Sequence[Ids]
) -> list[Compared]:
    """Every finding beside its neighbours in the same prompts, the one that leads the most first.

    Args:
        looker: Asks the skill.
        base: Asked which words are near.
        findings: What to compare; for a pair both words are replaced, by their first neighbours, their second, ...
        reference: Tokens drawn at random.
        clean: What each prompt is answered with without any of it.
    """
    worth = [one for one in findings if one.score >= WORTH]
    near = neighbours(base, [token for one in worth for token in one.tokens], reference) if worth else {}
    stead = {one.tokens: list(zip(*(near[token] for token in one.tokens), strict=True)) for one in worth}
    candidates = list(dict.fromkeys(words for each in stead.values() for words in each))
    said = dict(zip(candidates, answers(looker, candidates), strict=True))

    def beside(one: Finding) -> Compared:
        found = [toward(one.answer, words, 0.0, said[words], clean) for words in stead.get(one.tokens, [])]
        return Compared(one, tuple(sorted(found, key=lambda each: -each.score)))

    return sorted((beside(one) for one in findings), key=lambda each: -each.lead)
