"""Prompt lookup: drafts what followed the last few tokens where they occurred before, in the prompt or the answer.

Saxena, "Prompt Lookup Decoding", 2023. An index maps n-grams to the token after their newest occurrence. A new token
adds one entry for each length, and a lookup reads at most as many: nothing is searched again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

#: Number of tokens that match -> probability of the next one; chosen as in `draft_control`.
PRECISION = {2: 0.35, 3: 0.5}
_SHORTEST, _LONGEST = min(PRECISION), max(PRECISION)


class PromptLookup:
    """The index of one row.

    Args:
        ids: The tokens so far.
    """

    def __init__(self, ids: Iterable[int] = ()) -> None:
        self._recent: tuple[int, ...] = ()
        self._following: dict[tuple[int, ...], int] = {}
        for token in ids:
            self.append(token)

    def append(self, token: int) -> None:
        """Add the next token of the row."""
        recent = self._recent
        for length in range(_SHORTEST, len(recent) + 1):
            self._following[recent[-length:]] = token
        self._recent = (*recent, token)[-_LONGEST:]

    def next(self, context: Sequence[int]) -> tuple[int, float] | None:
        """The token after the newest occurrence of the longest end of a context that occurred before.

        Args:
            context: The tokens of the row and drafts behind them, the newest last. Drafts are not searched.

        Returns:
            Token id and its probability; None if no end of at least two tokens occurred before.
        """
        recent = tuple(context[-_LONGEST:])
        for length in range(len(recent), _SHORTEST - 1, -1):
            if (token := self._following.get(recent[-length:])) is not None:
                return token, PRECISION[length]
        return None
