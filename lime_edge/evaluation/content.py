"""The content of a message: text, or a list of text, images and videos (docs/data.md)."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from lime_edge.contract.content_parts import MediaPart, media_parts

Message = Mapping[str, Any]


def text_of(content: Any) -> str:
    """All text of a content; images and videos have none."""
    if isinstance(content, str):
        return content
    return "".join(part["text"] for part in content if part["type"] == "text")


def length_of(messages: Iterable[Message]) -> int:
    """Characters of all messages."""
    return sum(len(text_of(message["content"])) for message in messages)


def has_media(messages: Iterable[Message]) -> bool:
    """Whether a message has an image or a video."""
    return any(not isinstance(message["content"], str) for message in messages)


def modalities(messages: Iterable[Message]) -> tuple[str, ...]:
    """What messages consist of, in the order text, image, video."""
    kinds = {part.kind for part in media_parts(list(messages))}
    return ("text", *(kind for kind in ("image", "video") if kind in kinds))


def identity(content: Any) -> Any:
    """A JSON value that is equal for equal contents: a picture is the digest of its bytes."""
    if isinstance(content, str):
        return content
    found: list[Any] = []
    for part in content:
        if part["type"] == "text":
            found.append(part["text"])
        else:
            (media,) = media_parts([{"content": [part]}])
            found.append({media.kind: _digests(media)})
    return found


def _digests(part: MediaPart) -> Any:
    if part.form == "frames":
        return [_digests(frame) for frame in part.value]
    if part.form == "path":
        facts = os.stat(part.value)
        return _file_digest(part.value, facts.st_mtime_ns, facts.st_size)
    data = part.value if part.form == "bytes" else repr((part.value.shape, part.value.tobytes())).encode()
    return hashlib.sha256(data).hexdigest()


@lru_cache(maxsize=2**17)
def _file_digest(path: str, changed: int, size: int) -> str:
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def plain(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Messages with `identity` for contents, as JSON values."""
    return [{**message, "content": identity(message["content"])} for message in messages]
