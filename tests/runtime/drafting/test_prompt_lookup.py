"""The index compared with a search of all tokens."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from lime_edge.runtime.drafting.prompt_lookup import PRECISION, PromptLookup

TOKENS = st.lists(st.integers(0, 3), max_size=40)


def searched(ids: Sequence[int], drafts: Sequence[int]) -> tuple[int, float] | None:
    """Search for the longest end, the newest occurrence first."""
    context = [*ids, *drafts]
    for length in sorted(PRECISION, reverse=True):
        for start in range(len(ids) - length - 1, -1, -1):
            if len(context) >= length and ids[start : start + length] == context[-length:]:
                return ids[start + length], PRECISION[length]
    return None


@given(TOKENS, TOKENS, st.lists(st.integers(0, 4), max_size=4))
def test_the_index_finds_what_a_search_finds(prompt: list[int], answer: list[int], drafts: list[int]) -> None:
    lookup, ids = PromptLookup(prompt), list(prompt)
    for token in answer:
        assert lookup.next(ids) == searched(ids, [])
        lookup.append(token)
        ids.append(token)
    assert lookup.next([*ids, *drafts]) == searched(ids, drafts)


def test_the_newest_occurrence_of_the_longest_end_counts() -> None:
    assert PromptLookup([1, 2, 3, 1, 2, 4]).next([1, 2]) == (4, PRECISION[2])
    assert PromptLookup([7, 1, 2, 3, 1, 2, 4]).next([7, 1, 2]) == (3, PRECISION[3])
    assert PromptLookup([5, 5, 5]).next([5, 5, 5]) == (5, PRECISION[2])  # its own end is no occurrence of three
    assert PromptLookup([1, 2]).next([1, 2]) is None
    assert PromptLookup().next([]) is None


def test_a_token_adds_one_entry_a_length() -> None:
    """Memory is linear in the number of tokens."""
    lookup = PromptLookup(range(1000))
    assert len(lookup._following) <= len(PRECISION) * 1000
