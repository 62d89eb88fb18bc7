"""Counts the tokens of rows with the tokenizer and the chat template of a model, as training and runtime do."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from lime_edge.errors import LimeError
from lime_edge.runtime.text.prompts import Text

from .examples import Row
from .instruction import Instruction, is_request


class TokenCounter:
    """Counts tokens with the tokenizer of one directory: an exported model or a backbone.

    Args:
        directory: Holds tokenizer.json, tokenizer_config.json and the chat template.

    Raises:
        ModelError: The tokenizer or the chat template is invalid.
    """

    def __init__(self, directory: Path) -> None:
        self._text = Text(directory, (0,))  # the token 0 would end answers if the tokenizer named no other

    def prompt(self, row: Row, system: str | None = None) -> int:
        """Tokens of the formatted prompt.

        Raises:
            ConfigError: The chat template rejects the messages.
        """
        return len(self._text.tokens(list(row.messages), system).ids)

    def answer(self, text: str) -> int:
        """Tokens of an answer, with the end of the turn."""
        return len(self._text.encode(text)) + 1

    def row(self, row: Row, system: str | None = None) -> int:
        """Tokens of the prompt and the answer, which is what `--max-length` limits."""
        return self.prompt(row, system) + self.answer(row.answer)


def as_asked(rows: Sequence[Row], cut: Instruction, request: Callable[[str], str]) -> list[Row]:
    """Rows as a skill is asked them: without `cut`, and inside what its interface puts around a request."""
    return [_as_asked(row, cut, request) for row in rows]


def _as_asked(row: Row, cut: Instruction, request: Callable[[str], str]) -> Row:
    content = cut.bare(row.messages[0]["content"]) if is_request(row) else None
    if not isinstance(content, str):  # a conversation, or with pictures
        return row
    return replace(row, messages=({**row.messages[0], "content": request(content)},))


def one_line(error: LimeError) -> str:
    """An error and its faults in one line."""
    return ": ".join([error.message, *(["; ".join(error.faults)] if error.faults else [])])


def too_long(
    counter: TokenCounter,
    rows: Sequence[Row],
    systems: Iterable[str | None],
    context: int,
    max_new_tokens: int,
) -> dict[int, str]:
    """Find the rows that a model cannot answer, before it answers any.

    Args:
        counter: Counts with the model's tokenizer.
        rows: The rows to answer.
        systems: The system texts that they are answered with.
        context: Tokens that the model has room for.
        max_new_tokens: The longest free answer, in tokens.

    Returns:
        Index of the row -> why it cannot be answered.
    """
    texts = sorted(set(systems), key=str)
    choices: dict[tuple[str, ...], int] = {}
    found: dict[int, str] = {}
    for number, row in enumerate(rows):
        if row.choices not in choices:
            choices[row.choices] = max(map(counter.answer, row.choices), default=max_new_tokens)
        new = choices[row.choices]
        try:
            size = max(counter.prompt(row, system) for system in texts)
        except LimeError as error:
            found[number] = f"{row.place}: {one_line(error)}"
            continue
        if size + new > context:
            answer = "the longest choice" if row.choices else "the answer"
            found[number] = f"{row.place}: {size} tokens and {new} for {answer}; the model has room for {context}"
    return found
