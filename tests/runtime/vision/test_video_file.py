"""Videos: which frames are decoded, and what is refused, within bounds."""

from __future__ import annotations

import io
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lime_edge.contract.content_parts import MediaPart
from lime_edge.contract.vision import Video
from lime_edge.errors import ConfigError, MissingExtraError
from lime_edge.runtime.vision import video_file
from lime_edge.runtime.vision.video_file import video_source
from tests.runtime.vision import contracts as c
from tests.runtime.vision.video_files import given, numbers, video

EVEN = replace(c.LIME, video=Video(6))


def clip(value: Any, form: Any = "bytes", contract: Any = EVEN) -> video_file.Clip:
    return video_source(MediaPart("video", form, value)).clip(contract)


@pytest.mark.parametrize(
    ("kind", "codec"), [("mp4", "mpeg4"), ("matroska", "mpeg4"), ("avi", "mjpeg"), ("mp4", "libx264")]
)
def test_chosen_frames_are_decoded(kind: str, codec: str) -> None:
    found = clip(video(30, 10, kind, codec))
    assert numbers(found.frames) == [0, 5, 10, 15, 20, 25]
    np.testing.assert_allclose(found.seconds, [0, 0.5, 1, 1.5, 2, 2.5], atol=0.01)
    assert (round(found.duration, 2), round(found.step, 2)) == (3.0, 0.5)
    assert found.frames[0].shape == (32, 48, 3)


def test_a_path_is_the_same_video(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(video())
    found = video_source(MediaPart("video", "path", str(path)))
    direct = video_source(MediaPart("video", "bytes", path.read_bytes()))
    assert found.digest == direct.digest
    assert found.digest != video_source(MediaPart("video", "bytes", video(29))).digest


def test_frames_that_are_given_are_all_shown() -> None:
    frames = given(4)
    whole = clip(frames, "object")
    assert numbers(whole.frames) == [0, 1, 2, 3]
    parts = tuple(MediaPart("image", "object", frame) for frame in frames)
    assert numbers(clip(parts, "frames").frames) == [0, 1, 2, 3]
    assert whole.step == 1 / 24
    digests = {video_source(MediaPart("video", "object", one)).digest for one in (frames, frames[:3], frames ^ 1)}
    assert len(digests) == 3


def test_an_animation_is_a_video() -> None:
    file, frames = io.BytesIO(), [Image.fromarray(one) for one in given(8)]
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:], duration=100)
    assert len(clip(file.getvalue()).frames) == 6


@pytest.mark.parametrize(
    ("value", "form", "fault"),
    [
        (b"no video", "bytes", "is no video that can be read"),
        (video()[:200], "bytes", "is no video that can be read"),
        (
            b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile:///etc/passwd\n",
            "bytes",
            "is no video that can be read",
        ),
        (b"ffconcat version 1.0\nfile /etc/hostname\n", "bytes", "is no video that can be read"),
        ("none.mp4", "path", "No such file"),
        (given(7), "object", "has 7 frames; expected at most 6"),
        (np.zeros((2, 4, 4)), "object", r"the video is an array \[2, 4, 4\]"),
        (np.zeros((0, 4, 4, 3), np.uint8), "object", "expected a path, bytes, or uint8"),
        (np.zeros((2, 4, 4, 3)), "object", "frame 0 is an array"),
        (object(), "object", "the video is object"),
    ],
)
def test_what_is_refused(value: Any, form: str, fault: str) -> None:
    with pytest.raises(ConfigError, match=fault):
        clip(value, form)


def test_frames_have_one_size_and_the_model_takes_videos() -> None:
    parts = tuple(MediaPart("image", "object", np.zeros((size, 8, 3), np.uint8)) for size in (8, 9))
    with pytest.raises(ConfigError, match="different sizes: 8 x 8, 8 x 9"):
        clip(parts, "frames")
    with pytest.raises(ConfigError, match="this model takes no videos"):
        clip(given(2), "object", c.LIME)


def test_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    data = video()
    monkeypatch.setattr(video_file, "PIXEL_LIMIT", 1000)
    with pytest.raises(ConfigError, match="has pictures of 48 x 32 pixels"):
        clip(data)
    monkeypatch.undo()
    monkeypatch.setattr(video_file, "DECODED_LIMIT", 20)
    with pytest.raises(ConfigError, match="has more than 20 frames: cut it"):
        clip(data)


def test_a_video_of_fewer_frames_than_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video_file, "_frame_count", lambda container, stream: 60)
    assert numbers(clip(video(30)).frames) == [0, 10, 20]


def test_without_pyav_the_extra_is_named_and_frames_work(monkeypatch: pytest.MonkeyPatch) -> None:
    data = video()
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MissingExtraError, match=r"lime-edge\[video\]"):
        clip(data)
    assert len(clip(given(3), "object").frames) == 3
