"""Encodes prompts with the model's tokenizer and chat template.

The rules are those of training: the rendered template is encoded without extra special tokens, then come the answer
and the end-of-turn token.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from lime_edge.contract.names import TOKENIZER_FILE
from lime_edge.errors import ConfigError, ModelError
from lime_edge.runtime.types import Message, Prompt

from .chat_template import read_template

Ids = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Tokens:
    """An encoded prompt.

    Attributes:
        ids: [S], S >= 1.
        boundary: The first position of the answer's turn, from which a skill with activation "response" applies. At
            most S - 1, so that the skill always affects the prediction after the last token.
    """

    ids: Ids
    boundary: int


class Text:
    """Tokenizer and chat template of one model directory.

    Args:
        path: The model directory.
        eos_ids: Tokens that end an answer.

    Raises:
        ModelError: The tokenizer or the chat template is invalid.
    """

    def __init__(self, path: Path, eos_ids: Sequence[int]) -> None:
        self.tokenizer = _tokenizer(path / TOKENIZER_FILE)
        self._config = _json(path / "tokenizer_config.json")
        self._template = read_template(path, self._config)
        named: int | None = self.tokenizer.token_to_id(self._special("eos_token"))
        self.end_id = eos_ids[0] if named is None else named  # the token that training puts after an answer
        self.eos_ids = frozenset({*eos_ids, self.end_id})

    def tokens(self, prompt: Prompt, system: str | None = None, raw: bool = False) -> Tokens:
        """Encode one prompt.

        Args:
            prompt: A user message, or a list of messages; with `raw`, plain text.
            system: Text of a system message that is put first unless the messages begin with one.
            raw: Encode the text without the template, with the tokenizer's own special tokens.

        Raises:
            ConfigError: The prompt is invalid or empty.
        """
        if raw:
            if not isinstance(prompt, str):
                raise ConfigError(f"raw=True takes plain text; the prompt is {type(prompt).__name__}")
            ids = self.tokenizer.encode(prompt).ids
            return _tokens(ids, len(ids))
        messages = _messages(prompt)
        if system is not None and messages[0]["role"] != "system":
            messages = [{"role": "system", "content": system}, *messages]
        ids = self.encode(self.render(messages, answer=True))
        turns = self.encode(self.render(messages, answer=False))
        return _tokens(ids, len(turns) if ids[: len(turns)] == turns else len(ids))

    def known(self, ids: Sequence[int]) -> Tokens:
        """A prompt given as token ids; the boundary is before the template's answer header."""
        header = self._header
        ends = len(header) > 0 and list(ids[-len(header) :]) == header
        return _tokens(list(ids), len(ids) - len(header) if ends else len(ids))

    def encode(self, text: str) -> list[int]:
        """Token ids without added special tokens."""
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def render(self, messages: Sequence[Message], answer: bool) -> str:
        """Render the chat template; with `answer`, the header of the answer follows the messages."""
        if self._template is None:
            raise ConfigError("this model has no chat template: call with raw=True, or add chat_template.jinja")
        special = {name: self._special(name) for name in ("bos_token", "eos_token", "unk_token", "pad_token")}
        try:
            return self._template.render(
                messages=messages, add_generation_prompt=answer, tools=None, documents=None, **special
            )
        except Exception as error:  # a template is a program and can raise anything
            raise ConfigError(f"the chat template rejects these messages: {error}") from error

    @cached_property
    def _header(self) -> list[int]:
        """The tokens that open an answer, such as ``<|im_start|>assistant``."""
        if self._template is None:
            return []
        example = self.tokens("x")
        header: list[int] = example.ids[example.boundary :].tolist()
        return header

    def _special(self, name: str) -> str:
        """The text of a special token; tokenizer_config.json holds a string or an object."""
        value = self._config.get(name)
        if isinstance(value, dict):
            value = value.get("content")
        return value if isinstance(value, str) else ""


def _tokens(ids: list[int], boundary: int) -> Tokens:
    if not ids:
        raise ConfigError("the prompt is empty; expected at least one token")
    return Tokens(np.array(ids, np.int64), min(boundary, len(ids) - 1))


def _messages(prompt: Any) -> list[Message]:
    """The validated messages of a prompt."""
    if isinstance(prompt, str):
        return [{"role": "user", "content": prompt}]
    if not isinstance(prompt, list | tuple) or not prompt:
        raise ConfigError(f"the prompt is {prompt!r:.80}; expected text or a list of messages")
    faults = []
    for number, message in enumerate(prompt):
        if not isinstance(message, Mapping):
            faults.append(f"message {number} is {type(message).__name__}; expected an object with role and content")
            continue
        faults += [
            f"message {number} has {key} {message.get(key)!r:.60}; expected text"
            for key in ("role", "content")
            if not isinstance(message.get(key), str)
        ]
    if faults:
        raise ConfigError("the messages are invalid", faults)
    return list(prompt)


def _tokenizer(path: Path) -> Tokenizer:
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises bare Exception
        raise ModelError(f"{path} cannot be read: {error}") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path} cannot be read: {error}") from error
    return value if isinstance(value, dict) else {}
