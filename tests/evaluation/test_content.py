"""Contents of messages with pictures: their text, and what makes two of them equal."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lime_edge.evaluation.content import has_media, identity, length_of, modalities, plain, text_of
from tests.support.vision.pictures import png, write_png

TEXT = {"type": "text", "text": "which?"}


def message(*parts: object) -> dict[str, object]:
    return {"role": "user", "content": list(parts)}


def test_the_text_of_a_content_is_that_of_its_text_parts() -> None:
    image = {"type": "image", "data": png(0)}
    assert text_of("plain") == "plain"
    assert text_of([TEXT, image, TEXT]) == "which?which?"
    assert length_of([{"role": "user", "content": "abc"}, message(image, TEXT)]) == 9
    assert has_media([message(image)])
    assert not has_media([{"role": "user", "content": "abc"}])


def test_modalities_are_named_in_order() -> None:
    image = {"type": "image", "data": png(0)}
    video = {"type": "video", "frames": [image]}
    assert modalities([{"role": "user", "content": "abc"}]) == ("text",)
    assert modalities([message(video, image, TEXT)]) == ("text", "image", "video")


def test_equal_bytes_are_one_picture_wherever_they_stand(tmp_path: Path) -> None:
    first, same = write_png(tmp_path / "a.png", 1), write_png(tmp_path / "b.png", 1)
    other = write_png(tmp_path / "c.png", 2)
    ids = [identity([{"type": "image", "path": str(path)}]) for path in (first, same, other)]
    assert ids[0] == ids[1] == identity([{"type": "image", "data": png(1)}])
    assert ids[0] != ids[2]


def test_a_changed_file_is_another_picture(tmp_path: Path) -> None:
    path = write_png(tmp_path / "a.png", 1)
    before = identity([{"type": "image", "path": str(path)}])
    write_png(path, 2, 9)
    assert identity([{"type": "image", "path": str(path)}]) != before


def test_a_video_is_its_frames_and_an_array_its_numbers() -> None:
    frames = [{"type": "image", "data": png(seed)} for seed in range(2)]
    one, other = ({"type": "video", "frames": order} for order in (frames, frames[::-1]))
    assert identity([one]) != identity([other])
    dark, light = (np.full((2, 2, 3), value, np.uint8) for value in (0, 255))
    assert identity([{"type": "image", "image": dark}]) != identity([{"type": "image", "image": light}])
    assert plain([message(TEXT)]) == [{"role": "user", "content": ["which?"]}]
