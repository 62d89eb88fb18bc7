"""Encodes conversations with a chat template: one definition for training and for the runtime.

Only the template writes special tokens; whatever stands in a message is text. Token ids of conversations without
special-token text are those of the rendered template, encoded as a whole. For each image and video the template writes
one placeholder token.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from functools import cached_property
from typing import Any

from lime_edge.common.strict_json import bounded, show
from lime_edge.errors import ConfigError

from .content_parts import KINDS, content_faults, is_text, without_media
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
        placeholders: The token that the template writes for an ``"image"`` and for a ``"video"``; empty: the model
            reads text alone.
    """

    def __init__(
        self, tokenizer: Any, render: Render, source: str = "", placeholders: Mapping[str, int] | None = None
    ) -> None:
        self._tokenizer, self._unsafe_render, self._source = tokenizer, render, source
        self.placeholders = dict(placeholders or {})

    def prompt(self, messages: Any, system: str | None = None, continues: bool = False) -> tuple[list[int], int]:
        """Token ids of a conversation up to the answer, and the index at which the assistant's turn starts.

        An image or video is one id of `placeholders`; nothing else in the conversation gives these ids. If the template
        formats earlier turns differently once an answer is expected, or opens an answer with no token of its own, that
        index is the last token's, which predicts the answer.

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
        self._check_placeholders(chat, ids)
        if not ids:
            raise ConfigError("the prompt is empty; expected at least one token")
        start = len(before) if ids[: len(before)] == before else len(ids)
        return ids + self.text(begun), min(start, len(ids) - 1)

    def with_tools(self, tools: Sequence[Mapping[str, Any]], render: Render) -> Chat:
        """The same chat with a template that also writes these tools.

        Raises:
            ConfigError: The tools are no JSON values, or spell a special token: they cannot be told from the template.
        """
        faults = [f"tool {number} {fault}" for number, tool in enumerate(tools) for fault in value_faults(tool)]
        if not faults and self._special.suspicious(list(_strings(_plain(tools), False))):
            faults.append("a special token of this model is spelled in a tool; expected other words")
        if faults:
            raise ConfigError("the tools are invalid", bounded(faults))
        _ = self.roles, self._takes  # of the template alone, and asked for once
        made = copy(self)
        made._unsafe_render = render
        return made

    def text(self, text: str) -> list[int]:
        """Token ids of an answer, or of any text outside the template. All of it is data.

        Raises:
            ConfigError: It is not Unicode text.
        """
        if faults := list(text_faults(text)):
            raise ConfigError(f"the text {show(text)} {faults[0]}")
        return self._special.plain(text)

    def special(self, text: str) -> list[int]:
        """Token ids of a text in which special tokens are special: never of a user's text."""
        return self._special.encode(text)

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
        return [{str(key): self._copied(key, value) for key, value in message.items()} for message in messages]

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
        return SpecialTokens(self._tokenizer, (written & added.keys()) | {*self.placeholders.values()})

    @cached_property
    def _takes(self) -> tuple[bool, bool]:
        """Whether the template writes contents that are a string, and contents that are a list of parts."""
        written = []
        for content in (_PROBE, [{"type": "text", "text": _PROBE}]):
            try:
                text = self._unsafe_render([{"role": "user", "content": content}], True)
            except Exception:  # noqa: BLE001  # a template is a program and can raise anything
                text = ""
            written.append(_PROBE in text and "'type'" not in text and '"type"' not in text)
        return written[0] or not written[1], written[1]

    def _tried(self, messages: Messages) -> str | None:
        try:
            return self._render(messages, True)
        except ConfigError:
            return None

    def _render(self, messages: Messages, answer: bool) -> str:
        if not self._takes[0]:
            messages = [
                {**m, "content": [{"type": "text", "text": m["content"]}]} if isinstance(m["content"], str) else m
                for m in messages
            ]
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
        role, content = message.get("role"), message.get("content")
        if not isinstance(role, str):
            yield f"message {number} has role {show(role)}; expected text"
        if isinstance(content, list | tuple):
            yield from (f"message {number}: {fault}" for fault in self._content_faults(content))
        elif not isinstance(content, str):
            yield f"message {number} has content {show(content)}; expected text"
        if isinstance(role, str) and role not in self.roles:
            yield f"message {number} has the role {show(role)}; this model's template knows {', '.join(self.roles)}"
        for key, value in message.items():
            if not isinstance(key, str):
                yield f"message {number} has the key {show(key)}; expected text"
            elif not (key == "content" and isinstance(value, list | tuple)):
                texts = key if key == "role" else (key, value)
                yield from (f"message {number}: {show(key)} {fault}" for fault in value_faults(texts))

    def _content_faults(self, content: Sequence[Any]) -> Iterator[str]:
        faults = list(content_faults(content))
        yield from faults
        for number, part in enumerate(() if faults else without_media(content)):
            if part["type"] == "text":
                yield from (f"part {number}: the text {fault}" for fault in text_faults(part["text"]))
            elif part["type"] not in self.placeholders:
                known = ", ".join(f"{kind}s" for kind in self.placeholders)
                yield f"part {number} is {part['type']}; this model reads text{' and ' if known else ' alone'}{known}"
            elif not self._takes[1]:
                yield f"part {number} is {part['type']}; this model's chat template takes text alone"

    def _copied(self, key: Any, value: Any) -> Any:
        """A value of a valid message in Python's own types; parts of text alone become what the template takes."""
        if key != "content" or not isinstance(value, list | tuple):
            return _plain(value)
        parts = without_media(value)
        if self._takes[0] and all(map(is_text, parts)):
            return "".join(part["text"] for part in parts)
        return parts

    def _check_placeholders(self, chat: Messages, ids: list[int]) -> None:
        contents = [message["content"] for message in chat]
        given = [part["type"] for content in contents if isinstance(content, list) for part in content]
        for kind in KINDS:
            written = ids.count(self.placeholders[kind]) if kind in self.placeholders else 0
            if written != given.count(kind):
                raise ConfigError(
                    f"the chat template writes {written} placeholders for {given.count(kind)} {kind}s; "
                    "expected one for each"
                )


def _begun(messages: list[dict[str, Any]], continues: bool) -> tuple[list[dict[str, Any]], str]:
    """The messages before the answer, and how the answer begins."""
    if not continues or messages[-1]["role"] != "assistant":
        return messages, ""
    if len(messages) == 1:
        raise ConfigError("the only message is the assistant's; expected a message before it, which it answers")
    content = messages[-1]["content"]
    if isinstance(content, list):
        if not all(map(is_text, content)):
            raise ConfigError("the assistant's last message, which begins the answer, holds a picture; expected text")
        content = "".join(part["text"] for part in content)
    return messages[:-1], content


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


def _message(role: str, content: Any) -> dict[str, Any]:
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
            if top and key == "content" and isinstance(inner, list):  # parts: only their text is data
                yield from (part["text"] for part in inner if "text" in part)
            elif not (top and key == "role"):
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
        return dict(_replaced_item(key, inner, texts, top) for key, inner in value.items())
    return [_replaced(inner, texts, top) for inner in value] if isinstance(value, list) else value


def _replaced_item(key: str, inner: Any, texts: Iterator[str], top: bool) -> tuple[str, Any]:
    if top and key == "role":
        return key, inner
    if top and key == "content" and isinstance(inner, list):
        return key, [{**part, "text": next(texts)} if "text" in part else part for part in inner]
    return next(texts), _replaced(inner, texts, False)
