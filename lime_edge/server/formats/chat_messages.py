"""Messages of OpenAI's API as the runtime takes them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lime_edge.common.strict_json import bounded, load_json, show
from lime_edge.runtime.types import Prompt

from .api_errors import ApiError

_MEDIA = ("image_url", "video_url")  # parts that hold data themselves; a client cannot name a file of the server
_INLINE = "data:"


def to_prompt(messages: Sequence[Mapping[str, Any]]) -> Prompt:
    """The prompt of a conversation.

    One message of the user alone, as text, is a request: it goes through the interface of the skill. Everything else is
    a conversation, which does not.

    Raises:
        ApiError: Names every part that cannot be used.
    """
    faults: list[str] = []
    known = [dict(_fields(message)) for message in messages]
    for number, message in enumerate(known):
        message["content"] = _content(f"messages[{number}].content", message.get("content"), faults)
        if message.get("role") == "developer":
            message["role"] = "system"
    if faults:
        raise ApiError(400, "\n  - ".join(["the messages are invalid", *bounded(faults)]), "messages", "invalid_value")
    if len(known) == 1 and known[0].keys() == {"role", "content"} and known[0]["role"] == "user":
        content = known[0]["content"]
        if isinstance(content, str):
            return content
    return known


def _fields(message: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """What a message says; clients write null for what it does not."""
    for key, value in message.items():
        if key == "tool_calls" and isinstance(value, list):
            yield key, [_call(one) for one in value]
        elif value is not None:
            yield key, value


def _call(call: Any) -> Any:
    """A call of a function, with arguments as templates expect them: an object instead of its JSON text."""
    function = call.get("function") if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("arguments"), str):
        return call
    try:
        parsed = load_json(function["arguments"])
    except ValueError:
        return call
    return {**call, "function": {**function, "arguments": parsed}} if isinstance(parsed, dict) else call


def _content(where: str, content: Any, faults: list[str]) -> Any:
    """Text, or parts if one of them is an image or a video."""
    if content is None:
        return ""
    if not isinstance(content, list):
        return content
    faults += [fault for number, part in enumerate(content) for fault in _part_faults(f"{where}[{number}]", part)]
    if not content or faults or any(part["type"] != "text" for part in content):
        return content
    return "\n".join(part["text"] for part in content)


def _part_faults(where: str, part: Any) -> Iterator[str]:
    kind = part.get("type") if isinstance(part, Mapping) else None
    if kind == "text":
        if not isinstance(part.get("text"), str):
            yield f"{where} has the text {show(part.get('text'))}; expected text"
    elif kind in _MEDIA:
        inner = part.get(kind)
        url = inner.get("url") if isinstance(inner, Mapping) else None
        if not isinstance(url, str) or not url.startswith(_INLINE):
            yield f"{where} has the url {show(url)}; expected a data: URI, because this server fetches nothing"
    else:
        yield f"{where} is {show(part)}; expected an object with the type text or {', '.join(_MEDIA)}"
