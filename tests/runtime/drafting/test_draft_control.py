"""The chosen length compared with all lengths; what drafts may cost at most; when they stop and start again."""

from __future__ import annotations

import random
from itertools import accumulate
from operator import mul

from hypothesis import given
from hypothesis import strategies as st

from lime_edge.runtime.drafting.draft_control import ALLOWANCE, CAPACITY, CREDIT, DraftControl, SourceRecord
from lime_edge.runtime.drafting.step_costs import StepCosts

COSTS = StepCosts.of_threads(2)
PROBABILITIES = st.lists(st.floats(0, 0.95), max_size=7)


@given(PROBABILITIES, st.integers(0, 5))
def test_the_length_has_the_most_expected_tokens_per_cost(probabilities: list[float], forced: int) -> None:
    expected = [1 + forced + sum(list(accumulate(probabilities, mul))[:n]) for n in range(len(probabilities) + 1)]
    rates = [tokens / COSTS(1 + forced + n) for n, tokens in enumerate(expected)]
    chosen = DraftControl(COSTS).begin_step(probabilities, forced)
    assert rates[chosen] >= max(rates) - 1e-12


def test_certain_drafts_are_long_and_improbable_ones_are_none() -> None:
    assert DraftControl(COSTS).begin_step([0.9] * 7) == 7
    assert DraftControl(COSTS).begin_step([0.9, 0.1, 0.9]) == 1
    assert DraftControl(COSTS).begin_step([0.15] * 7) == 0
    assert DraftControl(COSTS).begin_step([]) == 0


@given(st.lists(st.tuples(PROBABILITIES, st.integers(0, 7), st.integers(0, 3)), max_size=80))
def test_drafts_cost_at_most_credit_and_allowance(steps: list[tuple[list[float], int, int]]) -> None:
    """Whatever the sources state and whichever tokens are accepted, in the whole row and in the rest of it."""
    control, cost, gained = DraftControl(COSTS), 0.0, 0
    losses = [0.0]
    for probabilities, right, forced in steps:
        chosen = control.begin_step(probabilities, forced)
        cost += COSTS(1 + forced + chosen) - COSTS(1 + forced)
        for _ in range(min(right, chosen)):
            control.accepted()
            gained += 1
        losses.append(cost - gained - ALLOWANCE * len(losses))
        assert losses[-1] <= min(CREDIT, min(losses) + CAPACITY) + 1e-9


def lengths(acceptance: float, steps: int, stated: float = 0.8) -> list[int]:
    """Drafted tokens of each step, for a source that is right with a probability other than the stated one."""
    control, record, drawn, made = DraftControl(COSTS), SourceRecord(), random.Random(0), []
    for _ in range(steps):
        record.fade()
        made.append(control.begin_step([record.corrected(stated)] * 7))
        for _ in range(made[-1]):
            right = drawn.random() < acceptance
            record.add(stated, right)
            if not right:
                break
            control.accepted()
    return made


def test_refused_drafts_stop_and_are_tried_again_cheaply() -> None:
    made = lengths(acceptance=0.0, steps=400)
    assert made[0] > 0
    later = made[20:]
    assert 0 < sum(later) < 0.1 * len(later)
    assert max(later) <= 2


def test_accepted_drafts_go_on() -> None:
    made = lengths(acceptance=0.95, steps=400)
    assert min(made) > 0
    assert sum(made) / len(made) > 5


def test_a_source_that_improves_is_used_again() -> None:
    control, record = DraftControl(COSTS), SourceRecord()
    made = []
    for step in range(300):
        record.fade()
        made.append(control.begin_step([record.corrected(0.8)] * 7))
        for _ in range(made[-1]):
            record.add(0.8, step >= 100)
            if step < 100:
                break
            control.accepted()
    assert sum(made[50:100]) < 10
    assert min(made[200:]) > 5


def test_records_correct_what_a_source_states() -> None:
    record = SourceRecord()
    assert record.corrected(0.5) == 0.5
    for _ in range(50):
        record.add(0.5, False)
    low = record.corrected(0.5)
    assert low < 0.05
    for _ in range(100):
        record.fade()
    assert 0.4 < record.corrected(0.5) <= 0.5
    for _ in range(100):
        record.add(0.1, True)
    assert record.corrected(0.1) > 0.8
    assert record.corrected(1.0) < 1
