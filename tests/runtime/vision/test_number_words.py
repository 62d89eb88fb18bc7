"""English words of numbers."""

from __future__ import annotations

import pytest

from lime_edge.runtime.vision.number_words import number_words


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (0, "zero"),
        (12, "twelve"),
        (20, "twenty"),
        (64, "sixty-four"),
        (100, "one hundred"),
        (768, "seven hundred and sixty-eight"),
        (999, "nine hundred and ninety-nine"),
        (1000, "1000"),
        (-1, "-1"),
    ],
)
def test_words(number: int, words: str) -> None:
    assert number_words(number) == words
