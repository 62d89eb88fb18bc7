"""TODO."""

from __future__ import annotations

from collections.abc import Sequence

from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream


class TextStream:
    """The text of one answer, token by token: whole characters, and never a piece of a stop string.

    Args:
        tokenizer: Of the model.
        stops: The text ends before the first of these.
    """

    def __init__(self, tokenizer: Tokenizer, stops: Sequence[str]) -> None:
        self._tokenizer, self._stops = tokenizer, stops
        self._decode = DecodeStream(skip_special_tokens=True)
        self._held = ""  # could be the beginning of a stop string
        self.stopped = False

    def push(self, token: int) -> str:
        """Add one token; the text that is certain now."""
        self._held += self._decode.step(self._tokenizer, token) or ""
        ends = [found for stop in self._stops if (found := self._held.find(stop)) >= 0]
        if ends:
            self.stopped = True
            return self._take(min(ends))
        return self._take(len(self._held) - self._undecided())

    def flush(self) -> str:
        """The rest of the text: no token follows that could make a stop string of it."""
        return "" if self.stopped else self._take(len(self._held))

    def _take(self, count: int) -> str:
        text, self._held = self._held[:count], self._held[count:]
        return text

    def _undecided(self) -> int:
        """Length of the longest ending that begins a stop string."""
        longest = max((len(stop) for stop in self._stops), default=1) - 1
        for count in range(min(longest, len(self._held)), 0, -1):
            if any(stop.startswith(self._held[-count:]) for stop in self._stops):
                return count
        return 0
