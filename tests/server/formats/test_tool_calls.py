"""Calls of functions in answers."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lime_edge.server.formats.api_errors import ApiError
from lime_edge.server.formats.request_models import ChatRequest
from lime_edge.server.formats.tool_calls import ToolText, call_form, must_call, tools_of

WEATHER = {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}
CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Köln"}}\n</tool_call>'


def body(**fields: Any) -> ChatRequest:
    tools = [{"type": "function", "function": one} for one in (WEATHER, {"name": "time"})]
    return ChatRequest(model="m", messages=[{"role": "user", "content": "x"}], **{"tools": tools, **fields})


@given(st.integers(1, 9), st.sampled_from(["", "It is ", "a <tool b ", "<tool_"]), st.integers(1, 3))
def test_text_and_calls_in_pieces_of_any_size(size: int, said: str, count: int) -> None:
    text, found, told = said + "\n".join([CALL] * count), ToolText(), ""
    for at in range(0, len(text), size):
        told += found.push(text[at : at + size])
    rest, calls = found.end()
    assert told + rest == said
    assert [call.function.name for call in calls] == ["weather"] * count
    assert {call.function.arguments for call in calls} == {'{"city": "Köln"}'}
    assert len({call.id for call in calls}) == count


@given(st.text(alphabet='<tool_cal>/{}"a ', max_size=60), st.integers(1, 9))
def test_text_that_is_no_call_is_said_as_it_is(text: str, size: int) -> None:
    found, told = ToolText(), ""
    for at in range(0, len(text), size):
        told += found.push(text[at : at + size])
    rest, calls = found.end()
    assert calls == []
    assert told + rest == text


def test_what_only_looks_like_a_call() -> None:
    for inner in ("", "no json", "[]", '{"arguments": {}}', '{"name": 1}', '{"name": "f", "arguments": []}'):
        text = f"<tool_call>{inner}</tool_call>"
        found = ToolText()
        assert found.push(text) + found.end()[0] == text


def test_choices() -> None:
    assert [tool.function.name for tool in tools_of(body())] == ["weather", "time"]
    assert tools_of(body(tool_choice="none")) == []
    named = body(tool_choice={"type": "function", "function": {"name": "time"}})
    assert [tool.function.name for tool in tools_of(named)] == ["time"]
    assert [must_call(body(tool_choice=one)) for one in (None, "none", "auto", "required")] == [False] * 3 + [True]
    assert must_call(named)
    for bad in (
        {"tool_choice": {"type": "function", "function": {"name": "x"}}},
        {"tools": [], "tool_choice": "required"},
    ):
        with pytest.raises(ApiError) as caught:
            tools_of(body(**bad))
        assert caught.value.param == "tool_choice"


def test_the_form_of_a_call() -> None:
    form = json.loads(call_form(tools_of(body())).value)
    assert [one["properties"]["name"]["const"] for one in form["anyOf"]] == ["weather", "time"]
    forced = ToolText(forced=True)
    assert forced.push('{"name": "time", "arguments": {}}') == ""
    assert forced.end()[1][0].function.name == "time"
