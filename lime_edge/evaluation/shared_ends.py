"""Finds what many texts have in common: the beginning and the ending that all share."""

from __future__ import annotations

from collections.abc import Sequence


def shared_ends(texts: Sequence[str]) -> tuple[str, str]:
    """The longest beginning and the longest ending that all texts share, cut between words.

    Every text is the beginning, something of its own, and the ending. Of texts that are all equal, the whole is the
    beginning. A word is a sequence of letters and digits, so text without spaces between words is cut at punctuation.

    Args:
        texts: At least one text.

    Returns:
        Beginning and ending; each may be empty.
    """
    beginning = _beginning(texts)
    rests = [text[len(beginning) :] for text in texts]
    return beginning, _beginning([rest[::-1] for rest in rests])[::-1]


def _beginning(texts: Sequence[str]) -> str:
    first, last = min(texts), max(texts)  # what these two share, all share
    size = next((at for at, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))
    if any(size < len(text) and text[size].isalnum() for text in texts):
        while size and first[size - 1].isalnum():
            size -= 1
    return first[:size]
