"""The draft table: what is learned from answers and what never is, its stored form, and what is refused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lime_edge.errors import ConfigError
from lime_edge.skills.draft_table import DraftTable, draft_form_faults, draft_number_faults
from lime_edge.skills.package import read_skill, write_skill
from tests.skills.format_2_cases import DRAFTS
from tests.support.faults.malformed import Case, assert_refused, draft_table, manifest, vectors

FUZZ = settings(max_examples=300, deadline=None, derandomize=True, database=None)
ANSWERS = st.lists(st.lists(st.integers(0, 3) | st.just(2**31 - 1), max_size=9), max_size=8)
Gram = tuple[int, ...]


def grams(row: Sequence[int], length: int) -> Iterator[Gram]:
    return (tuple(row[start : start + length]) for start in range(len(row) - length + 1))


def expected(answers: Sequence[Sequence[int]], order: int, least_rows: int) -> dict[Gram, tuple[int, float]]:
    """The entries of a table without a limit, counted in the plainest way."""
    found = {}
    for length in range(2, order + 1):
        counts = Counter(gram for row in answers for gram in grams(row, length))
        rows = Counter(gram for row in answers for gram in set(grams(row, length)))
        contexts = Counter(gram[:-1] for row in answers for gram in grams(row, length))
        for context, total in contexts.items():
            following = [gram for gram in counts if gram[:-1] == context and rows[gram] >= least_rows]
            if following:
                best = min(following, key=lambda gram: (-counts[gram], gram))
                found[context] = (best[-1], max(1, round(255 * counts[best] / total)) / 255)
    return found


@FUZZ
@given(ANSWERS, st.integers(2, 6), st.integers(1, 4))
def test_a_table_holds_what_a_plain_count_finds(answers: list[list[int]], order: int, least_rows: int) -> None:
    table = DraftTable.build(answers, order, least_rows)
    wanted = expected(answers, order, least_rows)
    if table is None:
        assert not wanted
        return
    assert table.entries == wanted
    assert table.order == order
    assert draft_form_faults(table.stored) == []
    assert list(draft_number_faults(table.stored)) == []
    again = DraftTable.build(answers[::-1], order, least_rows)
    assert again is not None
    assert all(np.array_equal(again.stored[name], array) for name, array in table.stored.items())


@FUZZ
@given(ANSWERS, st.lists(st.integers(0, 9), min_size=2, max_size=9))
def test_no_entry_comes_from_fewer_than_three_rows(answers: list[list[int]], secret: list[int]) -> None:
    """Neither an n-gram of two rows, nor any token that only they hold."""
    private = [*answers, [100 + id_ for id_ in secret], [100 + id_ for id_ in secret]]
    table = DraftTable.build(private)
    if table is None:
        return
    assert table.stored["draft.tokens"].max() <= 3 or table.stored["draft.tokens"].max() == 2**31 - 1
    for context, (token, _) in table.entries.items():
        gram = (*context, token)
        assert sum(gram in grams(row, len(gram)) for row in private) >= 3


@FUZZ
@given(ANSWERS, st.lists(st.integers(0, 4), max_size=6), st.integers(2, 5))
def test_next_backs_off_from_the_longest_context(answers: list[list[int]], context: list[int], order: int) -> None:
    table = DraftTable.build(answers, order, 1)
    if table is None:
        return
    ends = [tuple(context[start:]) for start in range(max(0, len(context) - order + 1), len(context))]
    assert table.next(context) == next((table.entries[end] for end in ends if end in table.entries), None)
    assert table.next([]) is None
    assert table.next(np.array(context, np.int64)) == table.next(context)  # type: ignore[arg-type]


@pytest.mark.parametrize("limit", [14, 40, 1000])
def test_over_the_limit_the_most_frequent_entries_stay(limit: int) -> None:
    rng = np.random.default_rng(1)
    answers = [row.tolist() for row in np.minimum(rng.geometric(0.1, (300, 20)), 60)]
    whole, table = DraftTable.build(answers, limit=2**16), DraftTable.build(answers, limit=limit)
    assert whole is not None
    if table is None:
        assert limit == 14  # one entry of two tokens takes 17 bytes
        return
    assert table.size <= limit < whole.size
    counts = Counter(gram for row in answers for length in range(2, 5) for gram in grams(row, length))
    kept = [counts[*context, table.entries[context][0]] for context in table.entries]
    left = [counts[*context, token] for context, (token, _) in whole.entries.items() if context not in table.entries]
    assert min(kept) >= max(left)
    assert whole.entries.items() >= table.entries.items()


def test_a_full_table_is_read_as_it_was_written(tmp_path: Path) -> None:
    answers = [[number % 20_000, number % 20_000 % 7] for number in range(60_000)]
    table = DraftTable.build(answers, order=2)
    assert table is not None
    assert 65_520 < table.size <= 2**16
    read = write_skill(tmp_path / "a.lime", manifest(), vectors(), draft=table).draft
    assert read is not None
    assert (read.meta(), read.size, read.entries) == (table.meta(), table.size, table.entries)
    assert read_skill(tmp_path / "a.lime").manifest.draft == {"order": 2, "entries": len(table)}


def test_answers_of_one_row_or_one_token_give_no_table() -> None:
    assert DraftTable.build([]) is None
    assert DraftTable.build([[1, 2, 3, 4] * 5]) is None
    assert DraftTable.build([[1], [1], [1]]) is None


def test_every_wrong_argument_is_named() -> None:
    with pytest.raises(ConfigError) as caught:
        DraftTable.build([[1, -1]], order=7, least_rows=0, limit=0)
    assert [fault.partition(" is ")[0] for fault in caught.value.faults[:3]] == ["order", "least_rows", "limit"]
    assert "the token id -1" in caught.value.faults[3]


def test_the_probability_is_a_share_of_what_follows() -> None:
    table = draft_table()
    assert table.entries == {(5,): (6, 1.0), (6,): (7, 191 / 255), (5, 6): (7, 191 / 255)}
    assert (len(table), table.meta(), table.size) == (3, {"order": 3, "entries": 3}, 33)
    assert table.largest_id == 7
    assert table.next([9, 6]) == (7, 191 / 255)
    assert table.next([6, 9]) is None


@pytest.mark.parametrize("case", DRAFTS, ids=lambda case: case.name)
def test_malformed_tables_are_refused_with_the_reason(tmp_path: Path, case: Case) -> None:
    assert_refused(tmp_path / "bad.lime", case)
