"""The parts of a message's content: text, images and videos, as transformers and OpenAI clients write them.

Only the form of a part is checked here. Files are read, and pictures decoded, by `lime_edge.runtime.vision`.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from lime_edge.common.strict_json import show
from lime_edge.errors import ConfigError

MediaKind = Literal["image", "video"]
Form = Literal["path", "bytes", "object", "frames"]

KINDS: tuple[MediaKind, ...] = ("image", "video")
BYTES_LIMIT = 2**28  # bytes of a picture or video that stands in a message itself
FRAMES_LIMIT = 1024  # frames of one video that are given one by one
PARTS_LIMIT = 1024  # parts of one message

_OPENAI = {"image_url": "image", "video_url": "video"}  # {"type": "image_url", "image_url": {"url": ...}}
_EXPECTED = "expected one of path, url, data, or the picture itself"
_DATA_URI = re.compile(r"data:[\w.+/;=-]*;base64,", re.ASCII)


@dataclass(frozen=True)
class MediaPart:
    """One image or video of a message, not read yet.

    Attributes:
        kind: ``"image"`` or ``"video"``.
        form: What `value` is: a ``"path"`` (str), the file's ``"bytes"``, an ``"object"`` (a PIL image or an array; for
            a video an array of frames), or ``"frames"``: a tuple of image parts.
        value: See `form`.
    """

    kind: MediaKind
    form: Form
    value: Any


def content_faults(content: Any) -> Iterator[str]:
    """What is wrong with the list of parts of a message."""
    if not content or len(content) > PARTS_LIMIT:
        yield f"has {len(content)} parts; expected 1 to {PARTS_LIMIT}"
        return
    for number, part in enumerate(content):
        try:
            if not is_text(part):
                _media(part)
        except ConfigError as error:
            yield f"part {number} {error.message}"


def is_text(part: Any) -> bool:
    """Whether a part is text.

    Raises:
        ConfigError: It is no valid part of any type.
    """
    if not isinstance(part, Mapping):
        raise ConfigError(f"is {type(part).__name__}; expected an object with a type")
    kind = part.get("type")
    if kind != "text":
        if not isinstance(kind, str) or kind not in (*KINDS, *_OPENAI):
            raise ConfigError(f"has the type {show(kind)}; expected text, image, video or image_url")
        return False
    if set(part) != {"type", "text"} or not isinstance(part["text"], str):
        raise ConfigError(f"is text with {show(dict(part))}; expected type and text alone")
    return True


def media_parts(messages: Any) -> list[MediaPart]:
    """The images and videos of valid messages, in order of appearance."""
    contents = [message.get("content") for message in messages if isinstance(message, Mapping)]
    listed = [part for content in contents if isinstance(content, list | tuple) for part in content]
    return [_media(part) for part in listed if not is_text(part)]


def without_media(content: Sequence[Any]) -> list[dict[str, str]]:
    """The parts of a content as a chat template reads them: an image is ``{"type": "image"}``, whatever it shows."""
    return [
        {"type": "text", "text": str.__str__(part["text"])} if is_text(part) else {"type": _media_kind(part)}
        for part in content
    ]


def is_parts(prompt: Any) -> bool:
    """Whether a prompt is the content of one message: a list of parts, which have types and no roles."""
    first = prompt[0] if isinstance(prompt, list | tuple) and prompt else None
    return isinstance(first, Mapping) and "type" in first and "role" not in first


def with_affixes(content: Sequence[Any], prefix: str, suffix: str) -> list[Any]:
    """The parts of a content with a text before its first text and one after its last; pictures keep their places."""
    parts = [dict(part) if isinstance(part, Mapping) else part for part in content]
    texts = [part for part in parts if isinstance(part, dict) and isinstance(part.get("text"), str)]
    if not texts:
        return [*parts, {"type": "text", "text": prefix + suffix}] if prefix + suffix else parts
    texts[0]["text"] = prefix + texts[0]["text"]
    texts[-1]["text"] += suffix
    return parts


def names_files(messages: Any) -> bool:
    """Whether valid messages name files of this machine, which a server must not open for a client."""
    inside = [one for part in media_parts(messages) for one in (part.value if part.form == "frames" else [part])]
    return any(one.form == "path" for one in inside)


def _media_kind(part: Mapping[str, Any]) -> str:
    kind: str = part["type"]
    return _OPENAI.get(kind, kind)


def _media(part: Mapping[str, Any]) -> MediaPart:
    """An image or a video from its part.

    Raises:
        ConfigError: Says what is wrong with it.
    """
    kind: Any = _media_kind(part)
    given = {key: value for key, value in part.items() if key != "type"}
    if part["type"] in _OPENAI:
        inner = given.pop(part["type"], None)
        url = inner.get("url") if isinstance(inner, Mapping) else inner
        unknown = set(inner) - {"url", "detail"} if isinstance(inner, Mapping) else set()
        if given or unknown or not isinstance(url, str):
            raise ConfigError(f"is {part['type']} with {show(dict(part))}; expected {{'url': a data: URI}}")
        return MediaPart(kind, "bytes", _from_uri(url))
    allowed = {"path", "url", "data", kind, *(("frames",) if kind == "video" else ())}
    if len(given) != 1 or not given.keys() <= allowed:
        found = ", ".join(sorted(show(key) for key in given)) or "nothing"
        raise ConfigError(f"is {_article(kind)} with {found}; {_EXPECTED} as {kind}")
    ((key, value),) = given.items()
    return _from_key(kind, key, value)


def _from_key(kind: MediaKind, key: str, value: Any) -> MediaPart:
    if key == "frames" or (kind == "video" and key == "video" and isinstance(value, list | tuple)):
        return MediaPart(kind, "frames", _frames(value))
    if key == "path":
        return MediaPart(kind, "path", _path(value))
    if key == "url":
        return MediaPart(kind, "bytes", _from_uri(value))
    if key == "data":
        return MediaPart(kind, "bytes", _bounded(bytes(value)) if _is_bytes(value) else _decoded(value))
    if isinstance(value, str | os.PathLike):  # as in transformers: {"type": "image", "image": "leaf.jpg"}
        uri = isinstance(value, str) and value.startswith(("data:", "http:", "https:"))
        return MediaPart(kind, "bytes", _from_uri(value)) if uri else MediaPart(kind, "path", _path(value))
    if _is_bytes(value):
        return MediaPart(kind, "bytes", _bounded(bytes(value)))
    if value is None or isinstance(value, bool | int | float | Mapping | list | tuple):
        raise ConfigError(f"is {_article(kind)} of {type(value).__name__}; {_EXPECTED} as {kind}")
    return MediaPart(kind, "object", value)


def _frames(values: Any) -> tuple[MediaPart, ...]:
    if not isinstance(values, list | tuple) or not 1 <= len(values) <= FRAMES_LIMIT:
        found = f"{len(values)} frames" if isinstance(values, list | tuple) else show(values)
        raise ConfigError(f"is a video of {found}; expected a list of 1 to {FRAMES_LIMIT} pictures")
    frames: list[MediaPart] = []
    for number, value in enumerate(values):
        try:
            if isinstance(value, Mapping):
                if is_text(value) or _media_kind(value) != "image":
                    raise ConfigError("is no image")
                frames.append(_media(value))
            else:
                frames.append(_from_key("image", "image", value))
        except ConfigError as error:
            raise ConfigError(f"is a video whose frame {number} {error.message}") from error
    return tuple(frames)


def _path(value: Any) -> str:
    try:
        path = os.fsdecode(os.fspath(value))
    except TypeError:
        raise ConfigError(f"has the path {show(value)}; expected text") from None
    if not path or "\0" in path:
        raise ConfigError(f"has the path {show(path)}; expected the name of a file")
    return path


def _from_uri(url: Any) -> bytes:
    if not isinstance(url, str):
        raise ConfigError(f"has the url {show(url)}; expected a data: URI")
    found = _DATA_URI.match(url[:200])
    if found is None:
        raise ConfigError(
            f"has the url {show(url)}; nothing is fetched from a network: expected data:image/png;base64,..., or path"
        )
    return _decoded(url[found.end() :])


def _decoded(text: Any) -> bytes:
    if not isinstance(text, str):
        raise ConfigError(f"has data of {type(text).__name__}; expected bytes or base64 text")
    if len(text) > BYTES_LIMIT * 4 // 3 + 4:
        raise ConfigError(f"has {len(text):,} characters of base64; expected at most {BYTES_LIMIT:,} bytes")
    try:
        return _bounded(base64.b64decode(text, validate=True))
    except (binascii.Error, ValueError) as error:
        raise ConfigError(f"has data that is not base64: {error}") from error


def _bounded(data: bytes) -> bytes:
    if not 0 < len(data) <= BYTES_LIMIT:
        raise ConfigError(f"has {len(data):,} bytes; expected 1 to {BYTES_LIMIT:,}")
    return data


def _is_bytes(value: Any) -> bool:
    return isinstance(value, bytes | bytearray | memoryview)


def _article(kind: str) -> str:
    return "an image" if kind == "image" else "a video"
