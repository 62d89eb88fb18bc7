"""Pictures on the command line and in a chat: what the model is asked, and what is said without one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from lime_edge.cli.picture_options import with_pictures
from lime_edge.runtime import Runtime
from tests.runtime.vision.vision_case import picture, seeing
from tests.support.cli_models import fails, lime
from tests.support.runtime_models import exported


@pytest.fixture
def leaf(tmp_path: Path) -> Path:
    path = tmp_path / "leaf.png"
    Image.fromarray(picture(1)).save(path)
    return path


def test_a_prompt_with_pictures_is_a_list_of_parts() -> None:
    assert with_pictures("x", [], []) == "x"
    assert with_pictures("x", [Path("a")], [Path("b")]) == [
        {"type": "image", "path": "a"},
        {"type": "video", "path": "b"},
        {"type": "text", "text": "x"},
    ]


def test_run_shows_pictures(leaf: Path) -> None:
    asked: Any = [{"type": "image", "path": str(leaf)}, {"type": "text", "text": "what is this"}]
    expected = Runtime.load(seeing(), threads=1).generate(asked, max_new_tokens=6).text
    found = lime("run", seeing(), "what is this", "--image", leaf, "--max-new-tokens", "6")
    assert found.stdout == f"{expected}\n"


def test_run_says_why_a_picture_cannot_be_shown(leaf: Path, tmp_path: Path) -> None:
    assert "this model reads text alone" in fails("run", exported(), "x", "--image", leaf)
    assert "No such file" in fails("run", seeing(), "x", "--image", tmp_path / "none.png")
    assert "raw=True takes plain text" in fails("run", seeing(), "x", "--raw", "--image", leaf)


def test_chat_shows_a_picture_with_the_next_line(leaf: Path) -> None:
    asked = [{"type": "image", "path": str(leaf)}, {"type": "text", "text": "what is this"}]
    expected = Runtime.load(seeing(), threads=1).generate([{"role": "user", "content": asked}], max_new_tokens=6).text
    lines = [f"/image {leaf}", "what is this", "/image none.png", f"/image {leaf}", "/clear", "no", "/quit"]
    said = lime("chat", seeing(), "--max-new-tokens", "6", stdin="\n".join(lines) + "\n").stdout
    assert "the next line is asked about leaf.png" in said
    assert "none.png is not a file; expected /image FILE" in said
    assert f"> {expected}\n" in said
    plain = Runtime.load(seeing(), threads=1).generate([{"role": "user", "content": "no"}], max_new_tokens=6).text
    assert f"> {plain}\n" in said  # /clear forgets what would have been shown, too
