"""Counts the tokens of rows with the tokenizer and the chat template of a model, as training and runtime do."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lime_edge.contract.content_parts import MediaPart, media_parts
from lime_edge.contract.names import VISION_JSON
from lime_edge.contract.vision import read_vision
from lime_edge.errors import LimeError
from lime_edge.runtime.text.prompts import Text
from lime_edge.runtime.vision.image_file import image_source
from lime_edge.runtime.vision.prepare import prepare_image, prepare_video
from lime_edge.runtime.vision.video_file import video_source

from .content import text_of
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
        self._vision = read_vision(directory) if (directory / VISION_JSON).is_file() else None
        self._counts: dict[str, int] = {}  # features by the digest of a picture

    def prompt(self, row: Row, system: str | None = None) -> int:
        """Tokens of the formatted prompt.

        The features of a picture count if the directory is an exported model, which says how many they are.

        Raises:
            ConfigError: The chat template rejects the messages, or a picture cannot be read.
        """
        messages = [{**message, "content": text_of(message["content"])} for message in row.messages]
        shown = sum(map(self._features, media_parts(list(row.messages)))) if self._vision else 0
        return len(self._text.tokens(messages, system).ids) + shown

    def _features(self, part: MediaPart) -> int:
        """Features of a picture, or of all chosen frames of a video."""
        assert self._vision is not None  # checked by the caller
        source: Any = image_source(part) if part.kind == "image" else video_source(part)
        if source.digest not in self._counts:
            if part.kind == "image":
                count = prepare_image(source.pixels(), self._vision).count
            elif self._vision.video_token:
                count = prepare_video(source.clip(self._vision), self._vision).count
            else:
                frames = source.clip(self._vision).frames
                count = sum(prepare_image(frame, self._vision).count for frame in frames)
            self._counts[source.digest] = count
        return self._counts[source.digest]

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
