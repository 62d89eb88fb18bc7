"""Decodes an answer's tokens to text as they arrive, and cuts the text before a stop string."""

from __future__ import annotations

from collections.abc import Sequence

from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream


class TextStream:
    """The text of one answer, token by token: complete characters only, and no part of a stop string.

    Args:
        tokenizer: The model's tokenizer.
        stops: Stop strings; the text ends before the first one that occurs.

    Attributes:
        stopped: A stop string occurred; push no more tokens.
    """

    def __init__(self, tokenizer: Tokenizer, stops: Sequence[str]) -> None:
        self._tokenizer, self._stops = tokenizer, stops
        self._decode = DecodeStream(skip_special_tokens=True)
        self._held = ""  # decoded text that may be the beginning of a stop string
        self.stopped = False

    def push(self, token: int) -> str:
        """Add one token; returns the text that is now final."""
        self._held += self._decode.step(self._tokenizer, token) or ""
        ends = [at for stop in self._stops if (at := self._held.find(stop)) >= 0]
        if ends:
            self.stopped = True
            return self._take(min(ends))
        return self._take(len(self._held) - self._undecided())

    def flush(self) -> str:
        """The rest of the text, once no more tokens follow that could complete a stop string."""
        return "" if self.stopped else self._take(len(self._held))

    def _take(self, count: int) -> str:
        text, self._held = self._held[:count], self._held[count:]
        return text

    def _undecided(self) -> int:
        """Length of the longest suffix that is the beginning of a stop string."""
        longest = max((len(stop) for stop in self._stops), default=1) - 1
        for count in range(min(longest, len(self._held)), 0, -1):
            if any(stop.startswith(self._held[-count:]) for stop in self._stops):
                return count
        return 0
