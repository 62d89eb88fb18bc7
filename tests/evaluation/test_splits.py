"""No prompt on both sides of a split; duplicates, conflicts and overlaps are found."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lime_edge.evaluation.examples import Row
from lime_edge.evaluation.splits import by_prompt, conflicts, duplicates, hold_back, overlap, prompt_key


def row(prompt: str, answer: str = "a", system: str | None = None) -> Row:
    before = () if system is None else ({"role": "system", "content": system},)
    return Row((*before, {"role": "user", "content": prompt}), answer)


def test_case_and_white_space_make_no_other_prompt() -> None:
    assert prompt_key(row("Is it\n so?")) == prompt_key(row(" IS IT SO? "))
    assert prompt_key(row("Straße")) == prompt_key(row("STRASSE"))
    different = [row("is it so"), row("is it so?"), row("is it so?", system="s"), row("is it so?", system="t")]
    assert len({prompt_key(one) for one in different}) == 4


def test_duplicates_and_conflicts() -> None:
    groups = by_prompt([row("p", "a"), row("P", " a"), row("p", "b"), row("q", "a"), row("p", "a")])
    assert duplicates(groups) == 2
    assert conflicts(groups) == [[row("p", "a"), row("p", "b")]]


@given(st.lists(st.integers(0, 9), min_size=1, max_size=60), st.integers(0, 3))
def test_equal_prompts_stay_on_one_side(numbers: list[int], seed: int) -> None:
    rows = [row(f"p{number}" if at % 2 else f" P{number}") for at, number in enumerate(numbers)]
    train, valid = hold_back(rows, seed)
    assert sorted(map(id, [*train, *valid])) == sorted(map(id, rows))
    assert not {prompt_key(one) for one in train} & {prompt_key(one) for one in valid}
    assert train
    assert bool(valid) == (len(set(numbers)) > 1)


def test_of_different_prompts_a_tenth_is_held_back_as_random_as_the_seed() -> None:
    rows = [row(f"p{number}") for number in range(40)]
    shuffled = list(rows)
    random.Random(5).shuffle(shuffled)
    assert hold_back(rows, 5) == (shuffled[4:], shuffled[:4])


@pytest.mark.parametrize("prompt", ["p", "P "])
def test_an_overlap_names_both_rows(prompt: str) -> None:
    rows, others = [row("o"), row(prompt, "b")], [row("p"), row("p", "c")]
    assert overlap(rows, others) == [(rows[1], others[0])]
