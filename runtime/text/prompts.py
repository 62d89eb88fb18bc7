"""Encodes prompts with the model's tokenizer and chat template.

The rules are those of training, see `lime_edge.contract.conversation`: what stands in a message is text, and only the
template writes special tokens.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from lime_edge.common.strict_json import show
from lime_edge.contract.conversation import Chat, Messages, text_faults
from lime_edge.contract.names import TOKENIZER_FILE, VISION_JSON
from lime_edge.contract.vision import read_vision
from lime_edge.errors import ConfigError, ModelError
from lime_edge.runtime.types import Prompt
from lime_edge.runtime.vision.placement import placeholders

from .chat_template import read_template
from .pictured import Picture, Reader, place_pictures
from .token_bytes import TokenBytes

Ids = npt.NDArray[np.int64]

_NAMED = ("bos_token", "eos_token", "unk_token", "pad_token")  # special tokens that a template can write by name


@dataclass(frozen=True)
class Tokens:
    """An encoded prompt.

    Attributes:
        ids: [S], S >= 1. Below zero are features of pictures, each with a number of its own.
        boundary: The first position of the answer's turn, from which a skill with activation "response" applies. At
            most S - 1, so that the skill always affects the prediction after the last token.
    """

    ids: Ids
    boundary: int
    pictures: tuple[Picture, ...] = ()  # those whose features are in `ids`: they are kept as long as these tokens

    @property
    def plain(self) -> Ids:
        """[S] token ids; a feature has the token of its picture."""
        ids = self.ids.copy()
        for picture in self.pictures:
            ids[(self.ids <= picture.ids[0]) & (self.ids >= picture.ids[-1])] = picture.token
        return ids


class Text:
    """Tokenizer and chat template of one model directory.

    Args:
        path: The model directory.
        eos_ids: Tokens that end an answer.
        context_length: Longer texts than that many tokens can stand for are refused without encoding them. None: no
            text is too long.

    Raises:
        ModelError: The tokenizer, its settings or the chat template are invalid.
    """

    def __init__(self, path: Path, eos_ids: Sequence[int], context_length: int | None = None) -> None:
        self.tokenizer = _tokenizer(path / TOKENIZER_FILE)
        config = _json(path / "tokenizer_config.json")
        self._named = {name: _special(path, config, name) for name in _NAMED}
        self._template = read_template(path, config)
        vision = read_vision(path) if (path / VISION_JSON).is_file() else None
        source = "" if self._template is None else self._template.source
        self._chat = Chat(self.tokenizer, self.render, source, {} if vision is None else placeholders(vision))
        self.reader: Reader | None = None  # reads pictures; set when the vision graph is open
        self._context_length = context_length
        named: int | None = self.tokenizer.token_to_id(self._named["eos_token"])
        self.end_id = eos_ids[0] if named is None else named  # the token that training puts after an answer
        self.eos_ids = frozenset({*eos_ids, self.end_id})

    def tokens(
        self, prompt: Prompt, system: str | None = None, raw: bool = False, tools: Sequence[Mapping[str, Any]] = ()
    ) -> Tokens:
        """Encode one prompt.

        Args:
            prompt: A user message, or a list of messages; with `raw`, plain text. If the last message is the
                assistant's, the answer continues it: the prompt is that of the messages before, then its tokens.
            system: Text of a system message that is put first unless the messages begin with one.
            raw: Encode the text without the template, with the tokenizer's own special tokens; those that the text
                spells are special, too.
            tools: Functions that the template shows to the model.

        Raises:
            ConfigError: The prompt is invalid, empty, or too long for the context in any encoding; or the template
                knows no tools.
        """
        self._check_length(_characters(prompt))
        if raw:
            ids = self._raw(prompt)
            return _tokens(ids, len(ids))
        if self._template is None:
            raise ConfigError("this model has no chat template: call with raw=True, or add chat_template.jinja")
        messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
        chat = self._chat
        if tools:
            if not self.takes_tools:
                raise ConfigError("the chat template of this model knows no tools: call without them")
            chat = chat.with_tools(tools, partial(self.render, tools=tools))
        if self.reader is None or not self.reader.has_pictures(messages):
            return _tokens(*chat.prompt(messages, system, continues=True))
        return Tokens(*place_pictures(chat, messages, system, self.reader, self._context_length))

    def known(self, ids: Sequence[int]) -> Tokens:
        """A prompt given as token ids; the boundary is before the template's answer header."""
        header = self._header
        ends = len(header) > 0 and list(ids[-len(header) :]) == header
        return _tokens(list(ids), len(ids) - len(header) if ends else len(ids))

    def encode(self, text: str) -> list[int]:
        """Token ids of an answer or of words: no special token is added, and those that the text spells are text.

        Raises:
            ConfigError: It is not Unicode text, or too long for the context in any encoding.
        """
        self._check_length(len(text))
        return self._chat.text(text)

    def render(self, messages: Messages, answer: bool, tools: Sequence[Mapping[str, Any]] | None = None) -> str:
        """Render the chat template; with `answer`, the header of the answer follows the messages."""
        if self._template is None:
            raise ConfigError("this model has no chat template")
        return self._template.compiled.render(
            messages=messages, add_generation_prompt=answer, tools=tools, documents=None, **self._named
        )

    def stop_ids(self, stops: Sequence[str]) -> frozenset[int]:
        """Ids of the stop strings that are special tokens; these never become text."""
        return frozenset(number for number, name in self._special.items() if name in stops)

    def stop_faults(self, stops: Sequence[str]) -> Iterator[str]:
        """Which stop strings can never occur."""
        for stop in stops:
            yield from (f"stop string {show(stop)} {fault}" for fault in text_faults(stop))
            if inside := [name for name in self._special.values() if name in stop and name != stop]:
                yield (
                    f"stop string {show(stop)} contains the special token {inside[0]!r}, which never becomes text; "
                    "expected text alone or a special token alone"
                )

    @property
    def takes_tools(self) -> bool:
        """Whether the chat template writes tools, and asks for calls as ``<tool_call>``."""
        return self._template is not None and self._template.takes_tools

    @cached_property
    def token_bytes(self) -> TokenBytes:
        """The bytes that each token stands for."""
        return TokenBytes(self.tokenizer)

    @cached_property
    def longest_token(self) -> int:
        """The most characters that one token can stand for."""
        return max(map(len, self.tokenizer.get_vocab(with_added_tokens=True)), default=1)

    @cached_property
    def _special(self) -> dict[int, str]:
        added = self.tokenizer.get_added_tokens_decoder()
        return {number: token.content for number, token in added.items() if token.special and token.content}

    @cached_property
    def _header(self) -> list[int]:
        """The tokens that open an answer, such as ``<|im_start|>assistant``."""
        if self._template is None:
            return []
        example = self.tokens("x")
        header: list[int] = example.ids[example.boundary :].tolist()
        return header

    def _raw(self, prompt: Any) -> list[int]:
        if not isinstance(prompt, str):
            raise ConfigError(f"raw=True takes plain text; the prompt is {type(prompt).__name__}")
        if faults := list(text_faults(prompt)):
            raise ConfigError(f"the prompt {faults[0]}")
        try:
            ids: list[int] = self.tokenizer.encode(prompt).ids
        except Exception as error:  # tokenizers raises bare Exception
            raise ConfigError(f"the tokenizer cannot encode {show(prompt)}: {error}") from error
        return ids

    def _check_length(self, characters: int) -> None:
        context = self._context_length
        if context is not None and characters > context and characters > context * self.longest_token:
            raise ConfigError(
                f"{characters:,} characters; the context of {context} tokens has room for at most "
                f"{context * self.longest_token:,}, as no token stands for more than {self.longest_token}: shorten it"
            )


def _tokens(ids: list[int], boundary: int) -> Tokens:
    if not ids:
        raise ConfigError("the prompt is empty; expected at least one token")
    return Tokens(np.array(ids, np.int64), min(boundary, len(ids) - 1))


def _characters(prompt: Any) -> int:
    """The number of characters in a prompt; a message counts as one more."""
    if isinstance(prompt, str):
        return len(prompt)
    contents = [message.get("content") for message in prompt if isinstance(message, Mapping)] if _listed(prompt) else []
    texts = [[content] if isinstance(content, str) else _texts(content) for content in contents]
    return sum(1 + len(text) for found in texts for text in found)


def _texts(content: Any) -> list[str]:
    """The texts in a list of parts."""
    found = [part.get("text") for part in content if isinstance(part, Mapping)] if _listed(content) else []
    return [text for text in found if isinstance(text, str)]


def _listed(prompt: Any) -> bool:
    return isinstance(prompt, list | tuple)


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
    if not isinstance(value, dict):
        raise ModelError(f"{path} holds {type(value).__name__}; expected an object")
    return value


def _special(path: Path, config: Mapping[str, Any], name: str) -> str:
    """The text of a special token; tokenizer_config.json holds a string or an object."""
    value = config.get(name)
    if isinstance(value, dict):
        value = value.get("content")
    text = value if isinstance(value, str) else ""
    if faults := list(text_faults(text)):
        raise ModelError(f"{path / 'tokenizer_config.json'}: {name} {faults[0]}")
    return text
