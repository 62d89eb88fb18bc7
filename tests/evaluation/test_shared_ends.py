"""What texts have in common, cut between words."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lime_edge.evaluation.shared_ends import shared_ends


@pytest.mark.parametrize(
    ("texts", "wanted"),
    [
        (["Is 1 even?\nAnswer:", "Is 12 even?\nAnswer:"], ("Is ", " even?\nAnswer:")),
        (["Say yes", "Say yesterday"], ("Say ", "")),
        (["it was red today", "it is red today"], ("it ", " red today")),
        (["same", "same"], ("same", "")),
        (["one"], ("one", "")),
        (["a b", "a"], ("a", "")),
        (["", "a"], ("", "")),
        (["red car", "blue scar"], ("", "")),
        (["Q: x Q: A", "Q: A"], ("Q: ", "A")),
        (["分类:猫 答:", "分类:狗 答:"], ("分类:", " 答:")),
    ],
)
def test_shared_ends(texts: list[str], wanted: tuple[str, str]) -> None:
    assert shared_ends(texts) == wanted


@given(st.lists(st.text("ab c", max_size=12), min_size=1, max_size=4))
def test_every_text_is_the_beginning_something_and_the_ending(texts: list[str]) -> None:
    beginning, ending = shared_ends(texts)
    for text in texts:
        assert text.startswith(beginning)
        assert text.endswith(ending)
        assert len(beginning) + len(ending) <= len(text)
        for at in (len(beginning), len(text) - len(ending)):
            assert not text[max(0, at - 1) : at + 1].isalnum() or at in (0, len(text))
