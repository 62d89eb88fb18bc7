"""Toy models, and decoding with and without drafts, for the tests of this folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from lime_edge.runtime.drafting.acceptance import Logits, verify
from lime_edge.runtime.drafting.drafter import Drafter
from lime_edge.runtime.drafting.step_costs import StepCosts

Model = Callable[[Sequence[int]], Logits]
Sample = Callable[[Logits], int]

CHEAP = StepCosts({1: 1, 2: 1.001, 16: 1.015})  # everything that has a chance is verified


class FakeTable:
    """A draft table given as a dictionary; drafts what a context's longest known end has."""

    def __init__(self, entries: dict[tuple[int, ...], tuple[int, float]]) -> None:
        self._entries = entries

    def next(self, context: Sequence[int]) -> tuple[int, float] | None:
        ends = (tuple(context[start:]) for start in range(max(0, len(context) - 3), len(context)))
        return next((self._entries[end] for end in ends if end in self._entries), None)


def bigram_model(vocabulary: int, seed: int, ties: bool = False) -> Model:
    """Logits that depend on the last two tokens; with `ties`, small whole numbers."""
    table = np.random.default_rng(seed).normal(0, 2, (vocabulary, vocabulary, vocabulary)).astype(np.float32)
    table = table.round() if ties else table
    return lambda ids: table[ids[-2], ids[-1]].copy()


def plainly(model: Model, sample: Sample, prompt: Sequence[int], count: int) -> list[int]:
    """Decode token by token."""
    ids = list(prompt)
    for _ in range(count):
        ids.append(sample(model(ids)))
    return ids[len(prompt) :]


def with_drafts(model: Model, sample: Sample, drafter: Drafter, prompt: Sequence[int], count: int) -> list[int]:
    """Decode as a loop with drafts does: each step verifies a draft."""
    ids = list(prompt)
    while (made := len(ids) - len(prompt)) < count:
        draft = drafter.propose(count - made - 1)
        logits: npt.NDArray[np.floating] = np.stack([model(ids + draft[:size]) for size in range(len(draft) + 1)])
        for token in verify(sample, logits, draft):
            drafter.accept(token)
            ids.append(token)
    return ids[len(prompt) :]
