"""Images and videos of a record: keys, markers in the prompt, faults."""

from __future__ import annotations

from typing import Any

import pytest

from lime_edge.evaluation.row_forms import example_of

A, B = {"type": "image", "path": "a.png"}, {"type": "image", "path": "b.png"}


def content(**record: Any) -> Any:
    return example_of({"answer": "yes", "prompt": "which?", **record}).messages[-1]["content"]


def text(value: str) -> dict[str, str]:
    return {"type": "text", "text": value}


@pytest.mark.parametrize(
    ("record", "wanted"),
    [
        ({"images": ["a.png", "b.png"]}, [A, B, text("which?")]),
        ({"image": "a.png"}, [A, text("which?")]),
        ({"images": ["a.png", "b.png"], "prompt": "<image>and<image>?"}, [A, text("and"), B, text("?")]),
        ({"image": {"bytes": b"x", "path": "a.png"}}, [{"type": "image", "data": b"x"}, text("which?")]),
        ({"image": {"bytes": None, "path": "a.png"}}, [A, text("which?")]),
        ({"video": "v.mp4"}, [{"type": "video", "path": "v.mp4"}, text("which?")]),
        ({"video": "v.mp4", "prompt": "<video>?"}, [{"type": "video", "path": "v.mp4"}, text("?")]),
        ({"frames": ["a.png", "b.png"]}, [{"type": "video", "frames": [A, B]}, text("which?")]),
        ({"images": ["a.png"], "frames": 8}, [A, text("which?")]),
        ({"images": ["a.png"], "prompt": ""}, [A]),
        ({"images": [], "image": None}, "which?"),
    ],
)
def test_pictures_stand_in_front_of_the_prompt_or_at_its_markers(record: dict[str, Any], wanted: Any) -> None:
    assert content(**record) == wanted


def test_conversations_take_pictures_in_the_first_turn_of_the_user() -> None:
    turns = [
        {"from": "human", "value": "<image>\nwhat?"},
        {"from": "gpt", "value": "a cat"},
        {"from": "human", "value": "colour?"},
        {"from": "gpt", "value": "grey"},
    ]
    messages = example_of({"conversations": turns, "image": "a.png"}).messages
    assert messages[0]["content"] == [A, text("\nwhat?")]
    assert messages[2]["content"] == "colour?"


def test_messages_with_parts_are_kept_and_text_parts_are_joined() -> None:
    parts = [{"type": "image", "image": "a.png", "text": None}, text("what?")]
    answer = {"role": "assistant", "content": "a cat"}
    found = example_of({"messages": [{"role": "user", "content": parts}, answer]})
    assert found.messages[0]["content"] == [A, text("what?")]
    joined = example_of({"messages": [{"role": "user", "content": [text("a"), text("b")]}, answer]})
    assert joined.messages[0]["content"] == "ab"


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ({"images": "a.png"}, "'images' is 'a.png'; expected a list"),
        ({"images": [3]}, "an image is 3; expected the path of a file"),
        ({"images": ["a.png"], "image": "b.png"}, "both 'images' and 'image'"),
        ({"video": "v.mp4", "frames": ["a.png"]}, "both 'video' and 'frames'"),
        ({"images": ["a.png"], "prompt": "<image> and <image>"}, "2 times <image> for 1 pictures"),
        ({"frames": [""]}, "a frame is ''"),
        ({"prompt": ""}, "'prompt' is ''"),
    ],
)
def test_faults_are_named(record: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        content(**record)


def test_parts_that_clients_may_not_send_are_refused() -> None:
    web = [{"type": "image", "url": "https://example.org/a.png"}]
    answer = {"role": "assistant", "content": "a cat"}
    with pytest.raises(ValueError, match="nothing is fetched"):
        example_of({"messages": [{"role": "user", "content": web}, answer]})
    with pytest.raises(ValueError, match="the answer is"):
        example_of({"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": [A]}]})
