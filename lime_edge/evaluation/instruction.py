"""The instruction of a data set: what all its prompts share around their requests, and the rows without it.

A skill can carry the instruction in its vectors; it then answers the bare requests.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from .examples import Row
from .shared_ends import shared_ends

_SENTENCE_ENDS = ".!?\u2026\u3002\uff01\uff1f"  # at the end of every request, these belong to the requests
_SHOWN = 120  # characters of an end that are shown


@dataclass(frozen=True)
class Instruction:
    """The text before and after every request.

    Attributes:
        beginning, ending: Both are empty if there is no instruction.
    """

    beginning: str = ""
    ending: str = ""

    def __bool__(self) -> bool:
        return bool(self.beginning or self.ending)

    @classmethod
    def of(cls, rows: Sequence[Row]) -> Instruction:
        """Find the instruction of rows whose prompts are single messages of the user.

        Ends that consist of white space and punctuation are none. Rows of which one is a conversation, has a system
        message or would be left without a request have no instruction.
        """
        if not rows or not all(map(is_request, rows)):
            return cls()
        beginning, ending = shared_ends([row.messages[0]["content"] for row in rows])
        ending = ending.lstrip(_SENTENCE_ENDS)
        found = cls(beginning if _words(beginning) else "", ending if _words(ending) else "")
        return found if all(found.bare(row.messages[0]["content"]).strip() for row in rows) else cls()

    def bare(self, prompt: str) -> str:
        """The request in a prompt; a prompt without the instruction is returned as it is."""
        if not self._around(prompt):
            return prompt
        return prompt[len(self.beginning) : len(prompt) - len(self.ending)]

    def shown(self) -> str:
        """Both ends in one short line."""
        return f"{_shortened(self.beginning)} ... {_shortened(self.ending)}"

    def cut(self, row: Row) -> Row:
        """The row with the bare request as its prompt; other rows than requests are returned as they are."""
        if not self or not is_request(row):
            return row
        return replace(row, messages=({"role": "user", "content": self.bare(row.messages[0]["content"])},))

    def _around(self, prompt: str) -> bool:
        long_enough = len(prompt) >= len(self.beginning) + len(self.ending)
        return long_enough and prompt.startswith(self.beginning) and prompt.endswith(self.ending)


def is_request(row: Row) -> bool:
    """Whether the prompt of a row is one message of the user, so that it can be asked as plain text."""
    return len(row.messages) == 1 and row.messages[0]["role"] == "user"


def _words(end: str) -> bool:
    return any(character.isalnum() for character in end)


def _shortened(end: str) -> str:
    return repr(end if len(end) <= _SHOWN else f"{end[: _SHOWN // 2]} [...] {end[-_SHOWN // 2 :]}")
