"""Bodies of requests: ranges, strictness, and what reaches the runtime."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest
from pydantic import ValidationError

from lime_edge.errors import ConfigError
from lime_edge.runtime.decoding.generation_options import Options
from lime_edge.server.formats.request_models import ChatRequest, CompletionRequest

CHAT: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "x"}]}


def test_settings_are_those_of_the_runtime() -> None:
    """Every name is known to the runtime, and the ends of every range pass there, too."""
    body = ChatRequest(**CHAT, max_tokens=1, max_completion_tokens=2, logprobs=True, top_logprobs=3, stop="x", seed=-1)
    found = body.settings()
    assert set(found) <= {field.name for field in fields(Options)}
    assert (found["max_new_tokens"], found["logprobs"], found["seed"]) == (2, 3, 2**63 - 1)
    ends: dict[str, tuple[Any, Any]] = {
        "temperature": (0.0, 10.0),
        "top_p": (0.0, 1.0),
        "top_k": (-1, 2**20),
        "frequency_penalty": (-2.0, 2.0),
        "presence_penalty": (-2.0, 2.0),
        "repetition_penalty": (0.1, 10.0),
        "seed": (-(2**63), 2**63 - 1),
        "max_tokens": (1, 2**20),
    }
    for at in (0, 1):
        settings = ChatRequest(**CHAT, **{name: values[at] for name, values in ends.items()}).settings()
        Options.settle(settings)
    for name, values in ends.items():
        for value in (values[0] - 1, values[1] + 1):
            with pytest.raises(ValidationError):
                ChatRequest(**CHAT, **{name: value})


def test_missing_settings_are_left_to_the_skill() -> None:
    assert set(ChatRequest(**CHAT).settings().values()) == {None}
    assert set(CompletionRequest(model="m", prompt="x").settings().values()) == {None}


def test_numbers_are_numbers() -> None:
    for fields_ in (
        {"n": "1"},
        {"n": 1.0},
        {"n": True},
        {"temperature": "1"},
        {"stream": 1},
        {"temperature": float("nan")},
    ):
        with pytest.raises(ValidationError):
            ChatRequest(**CHAT, **fields_)
    assert ChatRequest(**CHAT, temperature=1).temperature == 1


def test_unknown_fields_are_kept_by_name() -> None:
    assert ChatRequest.model_validate({**CHAT, "zoo": 1, "audio": {}}).unknown == ["audio", "zoo"]


def test_response_formats() -> None:
    def answers(**form: Any) -> Any:
        return ChatRequest.model_validate({**CHAT, "response_format": form}).settings()["answers"]

    assert answers(type="text").kind == "text"
    assert answers(type="json_object").value == '{"type": "object"}'
    schema = {"type": "object", "properties": {"b": {}, "a": {}}}
    assert answers(type="json_schema", json_schema={"name": "x", "schema": schema}).value.index('"b"') < 50
    with pytest.raises(ConfigError, match=r"response_format\.json_schema is missing"):
        answers(type="json_schema")
    with pytest.raises(ConfigError):
        answers(type="json_schema", json_schema={"schema": {"minLength": 10**9}})
