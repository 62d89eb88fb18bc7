"""Encodes conversations with a chat template: one definition for training and for the runtime.

Only the template writes special tokens; whatever stands in a message is text. Token ids of conversations without
special-token text are those of the rendered template, encoded as a whole.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

from lime_edge.common.strict_json import bounded, show
from lime_edge.errors import ConfigError

from .special_tokens import SpecialTokens

Messages = Sequence[Mapping[str, Any]]
Render = Callable[[Messages, bool], str]  # messages, whether the header of an answer follows

#: Roles that every template is asked about. A template for which any word is a role (ChatML) knows these alone.
ROLES = ("system", "user", "assistant", "tool")

_DEPTH = 16  # lists and objects in each other, in one message
_PROBE = "\U000f0002"  # a content that no template writes by itself or changes
_COMPARED = r"""role['"]?\]?\s*[!=]=\s*['"]([\w-]+)['"]"""  # message['role'] == 'developer'
_LISTED = r"""role['"]?\]?\s+(?:not\s+)?in\s+[\[(]([^\])]*)[\])]"""  # message.role in ['system', 'developer']


class Chat:
    """The chat template and the tokenizer of one model.

    Args:
        tokenizer: A `tokenizers.Tokenizer` without truncation and padding.
        render: Renders the template; may raise anything.
        source: The text of the template, in which further roles are looked for.
    """

    def __init__(self, tokenizer: Any, render: Render, source: str = "") -> None:
        self._tokenizer, self._unsafe_render, self._source = tokenizer, render, source

    def prompt(self, messages: Any, system: str | None = None, continues: bool = False) -> tuple[list[int], int]:
        """Token ids of a conversation up to the answer, and the index at which the assistant's turn starts.

        If the template formats earlier turns differently once an answer is expected, or opens an answer with no token
        of its own, that index is the last token's, which predicts the answer.

        Args:
            messages: The conversation, checked here.
            system: Text of a system message that is put first unless the messages begin with one.
            continues: A last message of the assistant is the beginning of the answer: the ids are those of the
                messages before it, then those of its content, as in training on an answer that begins with it.

        Raises:
            ConfigError: Names every invalid message, or why the template rejects them.
        """
        chat, begun = _begun(self.checked(messages), continues)
        if faults := list(text_faults(system or "")):
            raise ConfigError(f"the system text {faults[0]}")
        chat = with_system(chat, system)
        ids, before = self._encode(chat, True), self._encode(chat, False)
        if not ids:
            raise ConfigError("the prompt is empty; expected at least one token")
        start = len(before) if ids[: len(before)] == before else len(ids)
        return ids + self.text(begun), min(start, len(ids) - 1)

    def text(self, text: str) -> list[int]:
        """Token ids of an answer, or of any text outside the template. All of it is data.

        Raises:
            ConfigError: It is not Unicode text.
        """
        if faults := list(text_faults(text)):
            raise ConfigError(f"the text {show(text)} {faults[0]}")
        return self._special.plain(text)

    def checked(self, messages: Any) -> list[dict[str, Any]]:
        """A copy of the messages of a conversation, made of plain JSON values.

        Raises:
            ConfigError: Names every fault: a wrong type, an unknown role, text that is not Unicode.
        """
        if not isinstance(messages, list | tuple) or not messages:
            raise ConfigError(f"the prompt is {show(messages)}; expected text or a list of messages")
        faults = [fault for number, message in enumerate(messages) for fault in self._faults(number, message)]
        if faults:
            raise ConfigError("the messages are invalid", bounded(faults))
        return [{str(key): _plain(value) for key, value in message.items()} for message in messages]

    @cached_property
    def roles(self) -> tuple[str, ...]:
        """The roles whose messages this template writes, or about which it raises an error of its own.

        They are the usual ones and those that its source compares a role with.
        """
        found = re.findall(_COMPARED, self._source)
        found += [role for listed in re.findall(_LISTED, self._source) for role in re.findall(r"[\w-]+", listed)]
        known = tuple(role for role in dict.fromkeys([*ROLES, *found]) if self._knows(role))
        return known if "user" in known else ROLES  # a template that changes what it is given cannot be asked

    def _knows(self, role: str) -> bool:
        """Whether a message of this role comes out of the template. If every probe fails, the standard roles do."""
        user, reply, asked = (_message(name, "x") for name in ("user", "assistant", role))
        asked["content"] = _PROBE
        probes = ([asked], [asked, user], [user, asked], [user, reply, asked], [user, reply, asked, user])
        rendered = [text for probe in probes if (text := self._tried(probe)) is not None]
        return any(_PROBE in text for text in rendered) if rendered else role in ROLES

    @cached_property
    def _special(self) -> SpecialTokens:
        """The special tokens, and the other added tokens that the template writes into a plain conversation."""
        system, user, reply = (_message(role, _PROBE) for role in ("system", "user", "assistant"))
        texts = [self._tried(probe) for probe in ([user], [user, reply, user], [system, user, reply, user])]
        added = self._tokenizer.get_added_tokens_decoder()
        written = {number for text in texts if text for number in SpecialTokens(self._tokenizer).encode(text)}
        return SpecialTokens(self._tokenizer, written & added.keys())

    def _tried(self, messages: Messages) -> str | None:
        try:
            return self._render(messages, True)
        except ConfigError:
            return None

    def _render(self, messages: Messages, answer: bool) -> str:
        try:
            return self._unsafe_render(messages, answer)
        except ConfigError:
            raise
        except Exception as error:  # a template is a program and can raise anything
            raise ConfigError(f"the chat template rejects these messages: {show(str(error))}") from error

    def _encode(self, chat: list[dict[str, Any]], answer: bool) -> list[int]:
        rendered, data = self._render(chat, answer), list(_strings(chat))
        if not self._special.suspicious(data):
            return self._special.encode(rendered)
        hidden, back = self._special.hide(data)
        marked = self._render(_replaced(chat, iter(hidden)), answer)
        return self._special.encode_marked(rendered, marked, back)

    def _faults(self, number: int, message: Any) -> Iterator[str]:
        if not isinstance(message, Mapping):
            yield f"message {number} is {type(message).__name__}; expected an object with role and content"
            return
        for key in ("role", "content"):
            if not isinstance(message.get(key), str):
                yield f"message {number} has {key} {show(message.get(key))}; expected text"
        role = message.get("role")
        if isinstance(role, str) and role not in self.roles:
            yield f"message {number} has the role {show(role)}; this model's template knows {', '.join(self.roles)}"
        for key, value in message.items():
            if not isinstance(key, str):
                yield f"message {number} has the key {show(key)}; expected text"
            else:
                texts = key if key == "role" else (key, value)
                yield from (f"message {number}: {show(key)} {fault}" for fault in value_faults(texts))


def _begun(messages: list[dict[str, Any]], continues: bool) -> tuple[list[dict[str, Any]], str]:
    """The messages before the answer, and how the answer begins."""
    if not continues or messages[-1]["role"] != "assistant":
        return messages, ""
    if len(messages) == 1:
        raise ConfigError("the only message is the assistant's; expected a message before it, which it answers")
    return messages[:-1], messages[-1]["content"]


def with_system(messages: Sequence[dict[str, Any]], system: str | None) -> list[dict[str, Any]]:
    """The conversation with a skill's system text in front, unless it starts with a system message of its own."""
    if system is None or (messages and messages[0]["role"] == "system"):
        return list(messages)
    return [_message("system", system), *messages]


def value_faults(value: Any, depth: int = 0) -> Iterator[str]:
    """What is wrong with a value of a message; it is a JSON value, and its texts are Unicode."""
    if isinstance(value, str):
        yield from text_faults(value)
    elif isinstance(value, list | tuple | Mapping) and depth == _DEPTH:
        yield f"is nested in more than {_DEPTH} levels"
    elif isinstance(value, Mapping):
        yield from (f"has the key {show(key)}; expected text" for key in value if not isinstance(key, str))
        inside = (part for pair in value.items() for part in pair)
        yield from (fault for part in inside for fault in value_faults(part, depth + 1))
    elif isinstance(value, list | tuple):
        yield from (fault for inner in value for fault in value_faults(inner, depth + 1))
    elif not (value is None or isinstance(value, bool | int | float)):
        yield f"holds {type(value).__name__}; expected JSON values"


def text_faults(text: str) -> Iterator[str]:
    """Where a text is not Unicode: one half of a surrogate pair stands for no character."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        yield f"has the lone surrogate {text[error.start]!a} at character {error.start}; expected Unicode text"


def _message(role: str, content: str) -> dict[str, Any]:
    return {"role": role, "content": content}


def _plain(value: Any) -> Any:
    """A copy in Python's own types: a subclass could render as something else."""
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, Mapping):
        return {_plain(key): _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list | tuple) else value


def _strings(value: Any, top: bool = True) -> Iterator[str]:
    """All text in messages, keys included, except the roles; in the order of `_replaced`."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, inner in value.items():
            if not (top and key == "role"):
                yield key
                yield from _strings(inner, False)
    elif isinstance(value, list):
        for inner in value:
            yield from _strings(inner, top)


def _replaced(value: Any, texts: Iterator[str], top: bool = True) -> Any:
    """The same value with other texts, taken in the order of `_strings`."""
    if isinstance(value, str):
        return next(texts)
    if isinstance(value, dict):
        kept = ("role",) if top else ()
        return {
            key if key in kept else next(texts): inner if key in kept else _replaced(inner, texts, False)
            for key, inner in value.items()
        }
    return [_replaced(inner, texts, top) for inner in value] if isinstance(value, list) else value
