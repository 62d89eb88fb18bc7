"""Parts of a message: which forms of images and videos are accepted, and what is said of the others."""

from __future__ import annotations

import base64
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lime_edge.contract.content_parts import (
    BYTES_LIMIT,
    FRAMES_LIMIT,
    MediaPart,
    content_faults,
    is_parts,
    media_parts,
    names_files,
    with_affixes,
    without_media,
)

CODED = base64.b64encode(b"picture").decode()
ARRAY = np.zeros((2, 2, 3), np.uint8)
TEXT = {"type": "text", "text": "what is this"}


@pytest.mark.parametrize(
    ("part", "form", "value"),
    [
        ({"type": "image", "path": "a.png"}, "path", "a.png"),
        ({"type": "image", "path": Path("a.png")}, "path", "a.png"),
        ({"type": "image", "image": "a.png"}, "path", "a.png"),
        ({"type": "image", "url": f"data:image/png;base64,{CODED}"}, "bytes", b"picture"),
        ({"type": "image", "image": f"data:image/png;base64,{CODED}"}, "bytes", b"picture"),
        ({"type": "image", "data": CODED}, "bytes", b"picture"),
        ({"type": "image", "data": bytearray(b"picture")}, "bytes", b"picture"),
        ({"type": "image", "image": b"picture"}, "bytes", b"picture"),
        ({"type": "image", "image": ARRAY}, "object", ARRAY),
        ({"type": "image_url", "image_url": {"url": f"data:;base64,{CODED}"}}, "bytes", b"picture"),
        ({"type": "image_url", "image_url": {"url": f"data:a/b;base64,{CODED}", "detail": "low"}}, "bytes", b"picture"),
        ({"type": "video", "path": "a.mp4"}, "path", "a.mp4"),
        ({"type": "video", "video": ARRAY}, "object", ARRAY),
    ],
)
def test_forms(part: dict[str, Any], form: str, value: Any) -> None:
    (found,) = media_parts([{"role": "user", "content": [TEXT, part]}])
    assert (found.kind, found.form) == (part["type"].removesuffix("_url"), form)
    assert found.value is value or found.value == value
    assert list(content_faults([TEXT, part])) == []
    assert without_media([TEXT, part]) == [TEXT, {"type": found.kind}]


def test_frames_of_a_video() -> None:
    frames = ["1.png", b"picture", ARRAY, {"type": "image", "path": "2.png"}]
    for key in ("frames", "video"):
        (found,) = media_parts([{"role": "user", "content": [{"type": "video", key: frames}]}])
        assert found.form == "frames"
        assert [one.form for one in found.value] == ["path", "bytes", "object", "path"]


def test_parts_keep_their_order_over_messages() -> None:
    user = [{"type": "image", "path": "1"}, TEXT, {"type": "video", "path": "2"}]
    messages = [{"role": "user", "content": user}, {"role": "assistant", "content": "x"}, {"content": user[:1]}]
    assert media_parts(messages) == [
        MediaPart("image", "path", "1"),
        MediaPart("video", "path", "2"),
        MediaPart("image", "path", "1"),
    ]
    assert media_parts("text") == []


@pytest.mark.parametrize(
    ("part", "files"),
    [
        ({"type": "image", "path": "a"}, True),
        ({"type": "image", "image": "a"}, True),
        ({"type": "video", "frames": [b"x", "a"]}, True),
        ({"type": "video", "frames": [b"x"]}, False),
        ({"type": "image", "data": CODED}, False),
    ],
)
def test_a_server_sees_which_parts_name_files(part: dict[str, Any], files: bool) -> None:
    assert names_files([{"role": "user", "content": [part]}]) is files


@pytest.mark.parametrize(
    ("part", "fault"),
    [
        ("x", "is str; expected an object with a type"),
        ({"type": "audio"}, "has the type 'audio'; expected text, image, video or image_url"),
        ({"type": []}, r"has the type \[\]"),
        ({"type": "text"}, "is text with"),
        ({"type": "text", "text": 5}, "is text with"),
        ({"type": "text", "text": "x", "y": 1}, "expected type and text alone"),
        ({"type": "image"}, "is an image with nothing; expected one of path, url, data"),
        ({"type": "image", "path": "a", "data": "b"}, "is an image with 'data', 'path'"),
        ({"type": "image", "frames": ["a"]}, "is an image with 'frames'"),
        ({"type": "image", "path": 5}, "has the path 5; expected text"),
        ({"type": "image", "path": ""}, "expected the name of a file"),
        ({"type": "image", "path": "a\0b"}, "expected the name of a file"),
        ({"type": "image", "url": "https://x.org/a.png"}, "nothing is fetched from a network"),
        ({"type": "image", "image": "https://x.org/a.png"}, "nothing is fetched from a network"),
        ({"type": "image", "url": "file:///etc/passwd"}, "nothing is fetched from a network"),
        ({"type": "image", "url": "data:image/png,x"}, "expected data:image/png;base64"),
        ({"type": "image", "url": 5}, "has the url 5"),
        ({"type": "image", "data": "a?"}, "has data that is not base64"),
        ({"type": "image", "data": "é"}, "has data that is not base64"),
        ({"type": "image", "data": 5}, "has data of int"),
        ({"type": "image", "data": b""}, "has 0 bytes"),
        ({"type": "image", "image": None}, "is an image of NoneType"),
        ({"type": "image", "image": [1]}, "is an image of list"),
        ({"type": "image_url", "image_url": {"url": "data:;base64,eA==", "x": 1}}, "is image_url with"),
        ({"type": "image_url"}, "is image_url with"),
        ({"type": "video", "frames": []}, "is a video of 0 frames"),
        ({"type": "video", "frames": ["a"] * (FRAMES_LIMIT + 1)}, f"is a video of {FRAMES_LIMIT + 1} frames"),
        ({"type": "video", "frames": ["a", 5]}, "is a video whose frame 1 is an image of int"),
        ({"type": "video", "frames": [TEXT]}, "is a video whose frame 0 is no image"),
    ],
)
def test_parts_that_are_refused(part: Any, fault: str) -> None:
    found = list(content_faults([TEXT, part]))
    assert len(found) == 1
    assert found[0].startswith("part 1 ")
    assert re.search(fault, found[0])


def test_data_is_bounded_before_it_is_decoded() -> None:
    (found,) = content_faults([{"type": "image", "data": "A" * (BYTES_LIMIT * 4 // 3 + 8)}])
    assert "characters of base64; expected at most" in found


def test_a_content_has_parts() -> None:
    assert "has 0 parts" in next(content_faults([]))
    assert "has 1025 parts" in next(content_faults([TEXT] * 1025))


def test_a_bare_request_is_a_list_of_parts() -> None:
    assert is_parts([TEXT])
    assert is_parts(({"type": "image", "path": "a"},))
    for other in ("x", [], [{"role": "user", "content": "x"}], [{"type": "text", "role": "user"}], ["x"], None):
        assert not is_parts(other)


def test_texts_stand_around_the_texts_of_a_request() -> None:
    image, more = {"type": "image", "path": "a"}, {"type": "text", "text": "b"}
    assert with_affixes([image, TEXT, image], "<", ">") == [image, {"type": "text", "text": "<what is this>"}, image]
    assert with_affixes([TEXT, image, more], "<", ">")[0]["text"] == "<what is this"
    assert with_affixes([TEXT, image, more], "<", ">")[2]["text"] == "b>"
    assert with_affixes([image], "<", ">") == [image, {"type": "text", "text": "<>"}]
    assert with_affixes([image], "", "") == [image]
    assert TEXT["text"] == "what is this"  # the caller's parts stay as they are
    assert with_affixes(["x", 5], "<", "") == ["x", 5, {"type": "text", "text": "<"}]  # refused when they are encoded
