"""POST /v1/completions: text as it is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.server.served import Answer, ask, running, shared


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with running() as found:
        yield found


def complete(url: str, **fields: Any) -> Answer:
    return ask(url, "/v1/completions", {"model": "legal", "max_tokens": 6, **fields})


def test_prompts_are_taken_as_they_are(url: str) -> None:
    prompts = ["Hello", "<|im_start|>user\n", "é中😀"]
    expected = shared().generate(prompts, "legal", raw=True, max_new_tokens=6)
    found = complete(url, prompt=prompts).json
    assert [one["text"] for one in found["choices"]] == [one.text for one in expected]
    assert found["object"] == "text_completion"
    assert found["usage"]["prompt_tokens"] == sum(one.timings.prompt_tokens for one in expected)
    assert complete(url, prompt="Hello").json["choices"][0]["text"] == expected[0].text


def test_a_stream_of_several_prompts_and_answers(url: str) -> None:
    fields: dict[str, Any] = {"prompt": ["Hello", "no"], "n": 2, "temperature": 1.5, "seed": 3}
    whole = complete(url, **fields).json
    texts = ["", "", "", ""]
    reasons: list[Any] = [None] * 4
    events = complete(url, stream=True, stream_options={"include_usage": True}, **fields).events
    for event in events[:-1]:
        choice = event["choices"][0]
        texts[choice["index"]] += choice["text"]
        reasons[choice["index"]] = choice["finish_reason"]
    assert texts == [one["text"] for one in whole["choices"]]
    assert reasons == [one["finish_reason"] for one in whole["choices"]]
    assert events[-1]["choices"] == []
    assert events[-1]["usage"]["total_tokens"] == whole["usage"]["total_tokens"]


def test_logprobs(url: str) -> None:
    expected = shared().generate("Hello", "legal", raw=True, max_new_tokens=6, logprobs=2)
    assert expected.logprobs is not None
    found = complete(url, prompt="Hello", logprobs=2).json["choices"][0]["logprobs"]
    assert found["token_logprobs"] == pytest.approx([one.logprob for one in expected.logprobs], abs=1e-4)
    assert [len(one) for one in found["top_logprobs"]] == [2] * len(expected.token_ids)
    assert found["text_offset"][0] == 0
    events = complete(url, prompt="Hello", logprobs=2, stream=True).events
    parts = [one["choices"][0]["logprobs"] for one in events if one["choices"][0]["logprobs"]]
    for key in ("tokens", "text_offset"):
        assert [value for part in parts for value in part[key]] == found[key]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt": "x", "echo": True}, "echo"),
        ({"prompt": "x", "suffix": "y"}, "suffix"),
        ({"prompt": []}, "prompt"),
        ({"prompt": [1, 2]}, "prompt"),
        ({"prompt": ["x"] * 60, "n": 2}, "n"),
        ({}, "prompt"),
    ],
)
def test_what_cannot_be_done_is_refused(url: str, fields: dict[str, Any], param: str) -> None:
    found = complete(url, **fields)
    assert found.status == 400
    assert found.json["error"]["param"].startswith(param)


def test_an_empty_prompt(url: str) -> None:
    assert complete(url, prompt="").status == 400
