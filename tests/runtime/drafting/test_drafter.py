"""Chains of several sources, forced tokens, ends, and counts."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lime_edge.runtime.drafting.drafter import LONGEST, Drafter, Source
from lime_edge.runtime.drafting.step_costs import StepCosts
from lime_edge.skills.draft_table import DraftTable

from .toy_decoding import CHEAP, FakeTable

COUNTING = FakeTable({(token,): (token + 1, 0.9) for token in range(50)})


def test_a_chain_continues_from_drafted_tokens() -> None:
    assert Drafter([3], COUNTING, CHEAP).propose(4) == [4, 5, 6, 7]
    assert Drafter([3], COUNTING, CHEAP).propose(99) == list(range(4, 4 + LONGEST))
    assert Drafter([60], COUNTING, CHEAP).propose(4) == []
    assert Drafter([3], COUNTING, CHEAP).propose(0) == Drafter([3], COUNTING, CHEAP).propose(-1) == []


def test_a_draft_does_not_become_history() -> None:
    drafter = Drafter([3], COUNTING, CHEAP)
    assert drafter.propose(4) == drafter.propose(4)


def test_the_real_table() -> None:
    table: Source | None = DraftTable.build([[1, 2, 3, 4, 5]] * 3)
    assert table is not None
    assert Drafter([9, 1], table, CHEAP).propose(9) == [2, 3, 4, 5]
    assert Drafter([9, 1], table, CHEAP, ends=[4]).propose(9) == [2, 3]


def test_prompt_lookup_stands_behind_the_table_and_the_more_certain_source_wins() -> None:
    prompt = [1, 2, 3, 4, 5, 9, 1, 2]
    assert Drafter(prompt, None, CHEAP).propose(3) == [3, 4, 5]
    assert Drafter(prompt, FakeTable({(3,): (7, 0.9)}), CHEAP).propose(3) == [3, 7]
    assert Drafter(prompt, FakeTable({(2,): (8, 0.9), (8,): (1, 0.9)}), CHEAP).propose(2) == [8, 1]
    assert Drafter(prompt, FakeTable({(2,): (8, 0.01)}), CHEAP).propose(1) == [3]


def test_the_answer_is_looked_up_too() -> None:
    drafter = Drafter([1], None, CHEAP)
    for token in (5, 6, 7, 5, 6):
        drafter.accept(token)
    assert drafter.propose(2) == [7, 5]


def test_a_refused_source_gives_way_to_the_other() -> None:
    drafter = Drafter([1, 2] * 4, FakeTable({(2,): (8, 0.9), (1,): (8, 0.9)}), CHEAP)
    answer, drafts = [1, 2] * 20, []
    for token in answer:
        drafts.append(drafter.propose(1))
        drafter.accept(token)
    assert drafts[0] == [8]
    assert drafts[-2:] == [[1], [2]]


def test_forced_tokens_come_first_and_are_drafted_whatever_they_cost() -> None:
    dear = StepCosts({1: 1, 2: 3})
    drafter = Drafter([3], COUNTING, dear)
    assert drafter.propose(9, forced=[20, 21]) == [20, 21]
    assert drafter.propose(1, forced=[20, 21]) == [20]
    assert Drafter([3], COUNTING, CHEAP).propose(99, forced=range(1, 21)) == list(range(1, 21 + LONGEST))
    assert Drafter([3], COUNTING, CHEAP, ends=[21]).propose(9, forced=[20, 21, 22]) == [20]


def test_counts_leave_out_forced_tokens() -> None:
    drafter = Drafter([3], COUNTING, CHEAP)
    assert drafter.propose(4, forced=[10]) == [10, 11, 12, 13]
    for token in (10, 11, 40):
        drafter.accept(token)
    assert (drafter.drafted, drafter.accepted) == (3, 1)
    drafter.accept(13)  # not drafted behind a refused token
    assert (drafter.drafted, drafter.accepted) == (3, 1)


def test_tokens_without_a_draft_are_accepted() -> None:
    """In a batch, nothing is drafted."""
    drafter = Drafter([3], COUNTING, CHEAP)
    for token in (4, 5):
        drafter.accept(token)
    assert drafter.propose(1) == [6]


def test_refused_drafts_stop() -> None:
    drafter = Drafter([0], FakeTable({(token,): (999, 0.9) for token in range(400)}), StepCosts.of_threads(2))
    drafted = []
    for token in range(400):
        drafter.propose(7)
        drafter.accept(token)
        drafted.append(drafter.drafted)
    assert 0 < drafted[20] < drafted[-1] < drafted[20] + 40
    assert drafter.accepted == 0


@given(st.lists(st.integers(0, 4), min_size=1, max_size=20), st.integers(0, 9), st.lists(st.integers(0, 4), max_size=9))
def test_a_draft_is_never_longer_than_allowed_and_holds_no_end(ids: list[int], most: int, forced: list[int]) -> None:
    draft = Drafter(ids, COUNTING, CHEAP, ends=[4]).propose(most, forced)
    assert len(draft) <= most
    assert 4 not in draft
    uncut = forced[: forced.index(4)] if 4 in forced else forced
    assert draft[: len(uncut)] == uncut[:most]
