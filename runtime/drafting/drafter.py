"""Drafts the next tokens of one row, and counts how many were accepted.

Tokens that a constraint forces come first. Each further token is that of the source that is most certain, given the
tokens drafted before it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple, Protocol

from .draft_control import DraftControl, SourceRecord
from .prompt_lookup import PromptLookup
from .step_costs import StepCosts

LONGEST = 7  # drafted tokens in a step, without forced ones


class Source(Protocol):
    """Proposes the token after a context: the draft table of a skill, or a `PromptLookup`."""

    def next(self, context: Sequence[int]) -> tuple[int, float] | None:
        """Token id and the probability that it is right; None for no proposal."""


class _Draft(NamedTuple):
    token: int
    probability: float  # that it is accepted, by what was observed in this row
    stated: float  # the same, by its source
    record: SourceRecord | None  # of its source; None for a forced token


class Drafter:
    """Drafts for one row: call `propose` before a step and `accept` with each token of the answer.

    Args:
        prompt_ids: Tokens of the prompt, without virtual ones.
        table: The draft table of the skill; None if it has none.
        costs: What a step costs.
        ends: Tokens that end the answer. They are never drafted: the step that verifies the tokens before an end yields
            it without further cost.

    Attributes:
        drafted: Number of drafted tokens so far, without forced ones.
        accepted: Number of those that became tokens of the answer.
    """

    def __init__(
        self, prompt_ids: Iterable[int], table: Source | None, costs: StepCosts, ends: Collection[int] = ()
    ) -> None:
        self._context = [int(token) for token in prompt_ids]
        self._lookup = PromptLookup(self._context)
        sources = [self._lookup] if table is None else [table, self._lookup]
        self._sources: list[tuple[Source, SourceRecord]] = [(source, SourceRecord()) for source in sources]
        self._control, self._ends = DraftControl(costs), frozenset(ends)
        self._awaited: list[_Draft] = []  # what is left of the draft, in reverse
        self.drafted = self.accepted = 0

    def propose(self, most: int, forced: Sequence[int] = (), others: int = 0) -> list[int]:
        """Draft the tokens that the next step verifies behind the newest token.

        Args:
            most: Maximum length of the draft; the step yields up to one token more.
            forced: Tokens that a constraint forces next. They are drafted whatever they cost, if there are no others.
            others: Number of rows that share the next step with this one if it drafts nothing.

        Returns:
            0 to `most` token ids; none if sharing the step promises more.
        """
        for _, record in self._sources:
            record.fade()
        chain = self._chain(min(most, len(forced) + LONGEST), forced)
        certain = sum(draft.record is None for draft in chain)
        probabilities = [draft.probability for draft in chain[certain:]]
        if others:
            count = self._control.begin_shared_step(probabilities, certain, others)
        else:
            count = self._control.begin_step(probabilities, certain)
        if count is None:
            chain, count = [], 0
        self.drafted += count
        drafts = chain[: certain + count]
        self._awaited = drafts[::-1]
        return [draft.token for draft in drafts]

    def accept(self, token: int) -> None:
        """Add the next token of the answer, drafted or not."""
        if self._awaited:
            self._compare(self._awaited.pop(), token)
        self._context.append(token)
        self._lookup.append(token)

    def _compare(self, draft: _Draft, token: int) -> None:
        right = draft.token == token
        if not right:
            self._awaited = []
        if draft.record is not None:
            draft.record.add(draft.stated, right)
            if right:
                self.accepted += 1
                self._control.accepted()

    def _chain(self, most: int, forced: Sequence[int]) -> list[_Draft]:
        """Up to `most` drafts, which end before a token that ends the answer."""
        chain: list[_Draft] = []
        context, size = self._context, len(self._context)
        while len(chain) < most:
            at = len(chain)
            draft = _Draft(forced[at], 1.0, 1.0, None) if at < len(forced) else self._most_certain(context)
            if draft is None or draft.token < 0 or draft.token in self._ends:  # below zero are features of pictures
                break
            chain.append(draft)
            context.append(draft.token)
        del context[size:]
        return chain

    def _most_certain(self, context: Sequence[int]) -> _Draft | None:
        best = None
        for source, record in self._sources:
            found = source.next(context)
            if found is not None:
                draft = _Draft(found[0], record.corrected(found[1]), found[1], record)
                if best is None or draft.probability > best.probability:
                    best = draft
        return best
