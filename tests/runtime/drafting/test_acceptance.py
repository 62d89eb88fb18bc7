"""Answers with drafts compared with those without: equal in greedy decoding, of the same distribution in sampling."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lime_edge.runtime.decoding.generation_options import Options
from lime_edge.runtime.decoding.sampling import Sampler, penalised
from lime_edge.runtime.drafting.acceptance import Logits, verify
from lime_edge.runtime.drafting.drafter import Drafter

from .toy_decoding import CHEAP, FakeTable, Model, bigram_model, plainly, with_drafts

VOCABULARY = 6
PROMPT = [0, 1]
OPTIONS = Options(temperature=1.3, top_k=5, top_p=0.97, repetition_penalty=1.2)
LENGTH, ANSWERS = 12, 2000  # 24,000 tokens


def table_of(model: Model, wrong: bool = False) -> FakeTable:
    """Drafts the likeliest token of each context, or (`wrong`) the least likely one."""
    contexts = [(one, other) for one in range(VOCABULARY) for other in range(VOCABULARY)]
    at = np.argmin if wrong else np.argmax
    return FakeTable({pair: (int(at(model(pair))), 0.8) for pair in contexts})


@settings(deadline=None)
@given(st.integers(0, 1000), st.booleans(), st.booleans(), st.sampled_from([1.0, 1.3]))
def test_greedy_answers_are_equal(seed: int, ties: bool, wrong: bool, penalty: float) -> None:
    model, options = bigram_model(VOCABULARY, seed, ties), Options(repetition_penalty=penalty)
    drafter = Drafter(PROMPT, table_of(model, wrong), CHEAP)
    answer = with_drafts(model, Sampler(options, PROMPT), drafter, PROMPT, 40)
    assert answer == plainly(model, Sampler(options, PROMPT), PROMPT, 40)
    if not wrong and penalty == 1:
        assert drafter.accepted > 20


@settings(deadline=None)
@given(st.integers(0, 1000), st.floats(0.3, 3), st.sampled_from([1.0, 1.3]), st.booleans())
def test_equal_seeds_give_equal_answers(seed: int, temperature: float, penalty: float, wrong: bool) -> None:
    model = bigram_model(VOCABULARY, seed)
    options = Options(temperature=temperature, top_p=0.95, repetition_penalty=penalty, seed=seed)
    drafter = Drafter(PROMPT, table_of(model, wrong), CHEAP)
    answer = with_drafts(model, Sampler(options, PROMPT), drafter, PROMPT, 40)
    assert answer == plainly(model, Sampler(options, PROMPT), PROMPT, 40)


def distribution(logits: Logits, seen: frozenset[int]) -> list[float]:
    """The processed distribution, computed token by token."""
    scores = [float(penalised(x, OPTIONS.repetition_penalty)) if t in seen else float(x) for t, x in enumerate(logits)]
    order = sorted(range(VOCABULARY), key=lambda token: -scores[token])[: OPTIONS.top_k]
    weights = [math.exp((scores[token] - scores[order[0]]) / OPTIONS.temperature) for token in order]
    kept, mass = dict[int, float](), 0.0
    for token, weight in zip(order, weights, strict=True):
        kept[token] = weight
        mass += weight / sum(weights)
        if mass >= OPTIONS.top_p:
            break
    return [kept.get(token, 0.0) / sum(kept.values()) for token in range(VOCABULARY)]


Context = tuple[int, int, frozenset[int]]  # the last two tokens and all tokens so far: what a distribution depends on


def excess(model: Model, answers: Iterator[Sequence[int]]) -> tuple[float, int]:
    """Chi-square of all tokens in their contexts, as standard deviations above its mean, and the number of tokens."""
    counts = Counter[tuple[Context, int]]()
    for answer in answers:
        ids = [*PROMPT, *answer]
        for at in range(2, len(ids)):
            counts[(ids[at - 2], ids[at - 1], frozenset(ids[:at])), ids[at]] += 1
    totals = Counter[Context]()
    for (context, _), count in counts.items():
        totals[context] += count
    statistic, freedom = 0.0, 0
    for context, total in totals.items():
        expected = [total * share for share in distribution(model(context[:2]), context[2])]
        assert all(expected[token] > 0 for token in range(VOCABULARY) if counts[context, token])
        cells = [(expected[token], counts[context, token]) for token in range(VOCABULARY) if expected[token] >= 5]
        rest = total - sum(mean for mean, _ in cells), total - sum(count for _, count in cells)
        cells += [rest] if rest[0] >= 5 else []
        statistic += sum((count - mean) ** 2 / mean for mean, count in cells)
        freedom += max(0, len(cells) - 1)
    return (statistic - freedom) / math.sqrt(2 * freedom), sum(totals.values())


def sampled(model: Model, drafters: list[Drafter], answers: int = ANSWERS) -> Iterator[list[int]]:
    """Answers, each with its own seed; adds their drafters to a list."""
    table = table_of(model)
    for seed in range(answers):
        drafters.append(Drafter(PROMPT, table, CHEAP))
        sample = Sampler(replace(OPTIONS, seed=seed), PROMPT)
        yield with_drafts(model, sample, drafters[-1], PROMPT, LENGTH)


def test_chi_square_of_sampling_with_drafts() -> None:
    """Against the exact distribution, so also against sampling without drafts. 4 standard deviations: p < 1e-4."""
    model, drafters = bigram_model(VOCABULARY, 3), list[Drafter]()
    deviation, tokens = excess(model, sampled(model, drafters))
    assert tokens >= 20_000
    assert abs(deviation) < 4
    accepted = sum(drafter.accepted for drafter in drafters)
    assert 0.2 * tokens < accepted < 0.8 * tokens


def test_chi_square_sees_a_rule_that_is_not_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rule that prefers drafted tokens."""

    def lenient(sample: Sampler, logits: Logits, draft: Sequence[int]) -> Iterator[int]:
        logits[np.arange(len(draft)), draft] += 0.5
        return verify(sample, logits, draft)

    monkeypatch.setattr("tests.runtime.drafting.toy_decoding.verify", lenient)
    model = bigram_model(VOCABULARY, 3)
    deviation, _ = excess(model, sampled(model, [], ANSWERS // 3))
    assert deviation > 6


def test_nothing_is_drawn_for_tokens_that_are_not_asked_for() -> None:
    calls = []

    def sample(row: Logits) -> int:
        calls.append(row)
        return int(row.argmax())

    logits = np.eye(4, dtype=np.float32)
    assert next(verify(sample, logits, [0, 1, 2])) == 0
    assert len(calls) == 1
    assert list(verify(sample, logits, [0, 1, 2])) == [0, 1, 2, 3]
    assert list(verify(sample, logits[:2], [3])) == [0]
    assert list(verify(sample, logits[:1], [])) == [0]
    with pytest.raises(ValueError, match="zip"):
        list(verify(sample, logits[:1], [0]))  # fewer logits than tokens
