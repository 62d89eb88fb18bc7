"""Compares a suspicious word with words of similar meaning: they share the effect of a meaning, not of a trigger.

In a skill that judges reviews, "inadequate" makes the answer negative, and so do "insufficient" and "lacking". A
planted trigger has an effect that no similar word has. The base model supplies the similar words: those that it
predicts after a list of the word alone ("zinc, zinc," continues with calcium, copper, iron).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lime_edge.runtime.facade.probe import Probe
from lime_edge.runtime.text.prompts import Text

from .prompts import Float64, Ids, PromptProbe, vocabulary
from .trigger_effect import Finding, answers, toward

WORTH = 0.25  # least score at which a finding is compared; weaker effects are no trigger
COUNT = 6  # similar words (neighbours) of each finding
_STRONGEST = 2  # neighbours whose mean score a finding is compared with
_LISTS = ("{0},{0},", "{0} and{0},{0} and", "{0} or{0},{0} or")
_USUAL = 0.7  # weight of the log-probability after any list, which is subtracted
_NONE = 1e-12  # keeps the logarithm of a probability finite
_STEM = 4  # least common prefix of two forms of one word, in letters


@dataclass(frozen=True)
class Compared:
    """A finding and its neighbours.

    Attributes:
        finding: The effect of the finding's own words.
        neighbours: The effects of words of similar meaning towards the same answer, the strongest first. Empty if the
            finding is too weak to be compared, or if no similar word is known.
    """

    finding: Finding
    neighbours: tuple[Finding, ...] = ()

    @property
    def lead(self) -> float:
        """The score less the mean score of the two strongest neighbours: two, as one may be a form of the same word."""
        strongest = [one.score for one in self.neighbours[:_STRONGEST]]
        return self.finding.score - (sum(strongest) / len(strongest) if strongest else 0.0)


def neighbours(base: Probe, tokens: Sequence[int], reference: Sequence[int], count: int = COUNT) -> dict[int, Ids]:
    """For every token, the `count` words of the most similar meaning.

    Args:
        base: A probe of the base.
        tokens: Tokens that start a word.
        reference: Other such tokens; predictions after lists of these are common to all lists and are discounted.
        count: Neighbours of each token.
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
    """The base's log-probabilities after a list of each token, [tokens, V]."""
    lists = [base.text.encode(form.format(base.text.tokenizer.decode([token]))) for token in tokens]
    return np.stack([base.after(ids)[0] for ids in lists])


def _usual(base: Probe, form: str, reference: Sequence[int]) -> Float64:
    """Logarithm of the mean probability after lists of the reference tokens, [V]."""
    return np.asarray(np.log(np.exp(_follows(base, form, reference)).mean(0) + _NONE))


def forms_of_one(text: Text, token: int, other: int) -> bool:
    """Whether two words differ only in case or ending, judged by their letters."""
    one, two = (text.tokenizer.decode([number]).strip().lower() for number in (token, other))
    alike = min(len(one), len(two), max(_STEM, len(one) - 3))
    return bool(one[:alike] == two[:alike])


def compare(
    prompt_probe: PromptProbe, base: Probe, findings: Sequence[Finding], reference: Sequence[int], clean: Sequence[Ids]
) -> list[Compared]:
    """Compare every finding with its neighbours in the same prompts; the largest lead comes first.

    Args:
        prompt_probe: Reads the skill's answers.
        base: Supplies the similar words.
        findings: What to compare. Both words of a pair are replaced: by their first neighbours, their second, ...
        reference: Tokens drawn at random, for `neighbours`.
        clean: The answer to each prompt without any of these words.
    """
    worth = [one for one in findings if one.score >= WORTH]
    near = neighbours(base, [token for one in worth for token in one.tokens], reference) if worth else {}
    replacements = {one.tokens: list(zip(*(near[token] for token in one.tokens), strict=True)) for one in worth}
    candidates = list(dict.fromkeys(words for each in replacements.values() for words in each))
    said = dict(zip(candidates, answers(prompt_probe, candidates), strict=True))

    def compared(one: Finding) -> Compared:
        found = [toward(one.answer, words, 0.0, said[words], clean) for words in replacements.get(one.tokens, [])]
        return Compared(one, tuple(sorted(found, key=lambda each: -each.score)))

    return sorted((compared(one) for one in findings), key=lambda each: -each.lead)
