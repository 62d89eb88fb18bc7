"""Formatting for people: exact strings, at the edges of the units."""

from __future__ import annotations

import pytest

from lime_edge.common.formatting import printable, share, short, size


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 KB"),
        (99_940, "99.9 KB"),
        (123_456, "123 KB"),
        (5_000_000, "5.0 MB"),
        (2 * 10**12, "2000 GB"),
    ],
)
def test_sizes(count: int, text: str) -> None:
    assert size(count) == text


def test_printable_removes_what_controls_a_terminal_and_keeps_the_rest() -> None:
    assert printable("a\x1b[31mb\x00\x7f\x9b") == "a�[31mb���"
    assert printable("\ud800") == "�"
    assert printable("ä\tb\n漢🍋") == "ä\tb\n漢🍋"


def test_shares_and_digests() -> None:
    assert (share(0.98765), share(1)) == ("98.8 %", "100.0 %")
    assert short("0123456789abcdef") == "0123456789ab"
