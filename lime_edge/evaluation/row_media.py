"""The images and videos of a record, in the keys in which people keep them, as parts of a message."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lime_edge.common.strict_json import show
from lime_edge.contract.content_parts import FRAMES_LIMIT, PARTS_LIMIT

#: Keys of a record beside its prompt.
KEYS = ("images", "image", "video", "frames")
MARKER = "<image>"  # in a prompt, the place of the next image, as in the data of LLaVA

_VIDEO_MARKER = "<video>"


def media_of(record: Mapping[str, Any], faults: list[str]) -> list[dict[str, Any]]:
    """The parts under the keys `KEYS`; faults are appended."""
    given = {key: record[key] for key in KEYS if record.get(key) not in (None, [], "")}
    if "images" in given and "image" in given:
        faults.append("has both 'images' and 'image'; expected one")
    strip = isinstance(given.get("frames"), int) and not isinstance(given.get("frames"), bool)
    if strip:  # the number of frames in a picture that shows them side by side: the row asks about the picture
        del given["frames"]
    if "video" in given and "frames" in given:
        faults.append("has both 'video' and 'frames'; expected one")
    parts = _images(given, faults)
    if "video" in given:
        parts.append({"type": "video", **_one("'video'", given["video"], faults)})
    if "frames" in given:
        frames = _listed("'frames'", given["frames"], FRAMES_LIMIT, faults)
        parts.append(
            {"type": "video", "frames": [{"type": "image", **_one("a frame", each, faults)} for each in frames]}
        )
    return parts


def placed(text: str, parts: list[dict[str, Any]], faults: list[str]) -> list[dict[str, Any]]:
    """A content of text and parts: where the text has markers, or else in front of it."""
    if not parts:
        return [{"type": "text", "text": text}]
    marker = _VIDEO_MARKER if _VIDEO_MARKER in text and all(part["type"] == "video" for part in parts) else MARKER
    pieces = text.split(marker)
    if len(pieces) == 1:
        return [*parts, *_text(text)]
    if len(pieces) != len(parts) + 1:
        faults.append(f"has {len(pieces) - 1} times {marker} for {len(parts)} pictures")
        return []
    content = _text(pieces[0])
    for part, piece in zip(parts, pieces[1:], strict=True):
        content += [part, *_text(piece)]
    return content


def _text(text: str) -> list[dict[str, Any]]:
    return [{"type": "text", "text": text}] if text else []


def _images(given: Mapping[str, Any], faults: list[str]) -> list[dict[str, Any]]:
    images = _listed("'images'", given.get("images", []), PARTS_LIMIT, faults)
    images = [*images, *([given["image"]] if "image" in given else [])]
    return [{"type": "image", **_one("an image", image, faults)} for image in images]


def _listed(where: str, value: Any, limit: int, faults: list[str]) -> list[Any]:
    if not isinstance(value, list) or len(value) > limit:
        found = f"{len(value)} entries" if isinstance(value, list) else show(value)
        faults.append(f"{where} is {found}; expected a list of at most {limit} paths")
        return []
    return value


def _one(where: str, value: Any, faults: list[str]) -> dict[str, Any]:
    """The name of a file, or its bytes as a table of Hugging Face datasets holds them."""
    if isinstance(value, Mapping) and set(value) <= {"bytes", "path"}:
        if isinstance(value.get("bytes"), bytes) and value["bytes"]:
            return {"data": value["bytes"]}
        value = value.get("path")
    if not isinstance(value, str) or not value.strip():
        faults.append(f"{where} is {show(value)}; expected the path of a file")
        return {"path": "?"}
    return {"path": value}
