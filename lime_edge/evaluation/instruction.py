"""The instruction of a data set: what all its prompts share around their requests, and the rows without it.

A skill can carry the instruction in its vectors; it then answers the bare requests.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from .examples import Row
from .shared_ends import shared_ends

_SENTENCE_ENDS = ".!?\u2026\u3002\uff01\uff1f"  # at the end of every request, these belong to the requests
_PICTURES = ("\U000f0000", "\U000f0001")  # different in neighbouring rows, since no two pictures are shared
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
        prompts = [_marked(row.messages[0]["content"], _PICTURES[i % 2]) for i, row in enumerate(rows)]
        beginning, ending = shared_ends(prompts)
        if any(mark in beginning + ending for mark in _PICTURES):  # of one row
            return cls()
        ending = ending.lstrip(_SENTENCE_ENDS)
        found = cls(beginning if _words(beginning) else "", ending if _words(ending) else "")
        return found if all(found._cut(prompt).strip() for prompt in prompts) else cls()

    def bare(self, content: Any) -> Any:
        """The request in a prompt, text or a list of parts; a prompt without the instruction is returned as it is."""
        if isinstance(content, str):
            return self._cut(content)
        begins, ends = (content[at]["text"] if content[at]["type"] == "text" else "" for at in (0, -1))
        if not (begins.startswith(self.beginning) and ends.endswith(self.ending)):
            return content
        parts = [dict(part) for part in content]
        if self.beginning:
            parts[0]["text"] = parts[0]["text"][len(self.beginning) :]
        if self.ending:
            parts[-1]["text"] = parts[-1]["text"][: -len(self.ending)]
        return [part for part in parts if part.get("text") != ""]

    def _cut(self, prompt: str) -> str:
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


def _marked(content: Any, mark: str) -> str:
    """A prompt as text in which a mark stands for each picture."""
    if isinstance(content, str):
        return content
    return "".join(part["text"] if part["type"] == "text" else mark for part in content)


def _words(end: str) -> bool:
    return any(character.isalnum() for character in end)


def _shortened(end: str) -> str:
    return repr(end if len(end) <= _SHOWN else f"{end[: _SHOWN // 2]} [...] {end[-_SHOWN // 2 :]}")
