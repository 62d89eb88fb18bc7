"""Messages of OpenAI's API as the runtime takes them."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lime_edge.server.formats.api_errors import ApiError
from lime_edge.server.formats.chat_messages import to_prompt


def user(content: Any, **more: Any) -> dict[str, Any]:
    return {"role": "user", "content": content, **more}


def test_one_message_of_the_user_alone_is_a_request() -> None:
    assert to_prompt([user("x")]) == "x"
    assert to_prompt([user([{"type": "text", "text": "x"}, {"type": "text", "text": "y"}])]) == "x\ny"
    assert to_prompt([user("x", name=None)]) == "x"
    assert to_prompt([user("x", name="me")]) == [user("x", name="me")]
    assert to_prompt([{"role": "system", "content": "x"}]) == [{"role": "system", "content": "x"}]
    assert to_prompt([user("x"), user("y")]) == [user("x"), user("y")]


def test_developers_and_calls() -> None:
    arguments = [('{"city": "K"}', {"city": "K"}), ("[1]", "[1]"), ("no json", "no json"), ({"a": 1}, {"a": 1})]
    for given_, expected in arguments:
        call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": given_}}
        reply = {"role": "assistant", "content": None, "tool_calls": [call]}
        messages: list[dict[str, Any]] = [{"role": "developer", "content": "d"}, reply]
        found: Any = to_prompt(messages)
        assert found[0] == {"role": "system", "content": "d"}
        assert found[1]["content"] == ""
        assert found[1]["tool_calls"][0]["function"]["arguments"] == expected
        assert call["function"] == {"name": "f", "arguments": given_}  # nothing of the caller's is changed


def test_images_stay_parts_and_nothing_is_fetched_or_read() -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA==", "detail": "low"}}
    parts = [{"type": "text", "text": "What is this?"}, image]
    assert to_prompt([user(parts)]) == [user(parts)]
    bad: list[Any] = [
        {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}},
        {"type": "image_url", "image_url": {"url": "file:///etc/passwd"}},
        {"type": "image_url", "image_url": "data:image/png;base64,AA=="},
        {"type": "image", "path": "/etc/passwd"},
        {"type": "image", "image": "/etc/passwd"},
        {"type": "text", "text": 1},
        {"type": None},
        "text",
        None,
    ]
    with pytest.raises(ApiError) as caught:
        to_prompt([user(bad)])
    assert caught.value.status == 400
    assert [f"messages[0].content[{n}]" in caught.value.message for n in range(len(bad))] == [True] * len(bad)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
KEYS = st.sampled_from(["role", "content", "tool_calls", "name", "type", "text", "image_url", "function", "arguments"])


@given(st.lists(st.dictionaries(KEYS, JSON, max_size=4), min_size=1, max_size=3))
def test_anything_is_a_prompt_or_one_error(messages: list[dict[str, Any]]) -> None:
    with contextlib.suppress(ApiError):
        assert isinstance(to_prompt(messages), str | list)
