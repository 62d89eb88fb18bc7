"""POST /v1/chat/completions: the answers of the runtime, in the forms of OpenAI's API."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.server.served import HELLO, NAME, chat, running, shared


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with running() as found:
        yield found


@pytest.mark.parametrize(("model", "skill"), [("legal", "legal"), (f"{NAME}:brief", "brief"), (NAME, None)])
def test_the_answer_is_that_of_the_runtime(url: str, model: str, skill: str | None) -> None:
    expected = shared().generate("Hello", skill, max_new_tokens=6)
    found = chat(url, model).json
    choice = found["choices"][0]
    assert choice["message"] == {"role": "assistant", "content": expected.text, "refusal": None}
    assert choice["finish_reason"] == expected.finish_reason
    assert found["model"] == model
    assert found["object"] == "chat.completion"
    assert found["usage"]["prompt_tokens"] == expected.timings.prompt_tokens
    assert found["usage"]["completion_tokens"] == len(expected.token_ids)
    receipt = found["lime"][0]["receipt"]
    for key in ("skills", "backbone", "adapter", "graph", "precision"):
        assert receipt[key] == expected.receipt[key]


def test_a_stream_has_the_same_text_and_ends_with_the_usage(url: str) -> None:
    whole = chat(url, max_tokens=20).json
    answer = chat(url, max_tokens=20, stream=True, stream_options={"include_usage": True})
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = answer.events
    assert {one["object"] for one in events} == {"chat.completion.chunk"}
    assert len({one["id"] for one in events}) == 1
    assert events[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    text = "".join(one["choices"][0]["delta"].get("content", "") for one in events[:-1])
    assert text == whole["choices"][0]["message"]["content"]
    reasons = [one["choices"][0]["finish_reason"] for one in events[:-1]]
    assert reasons == [None] * (len(reasons) - 1) + [whole["choices"][0]["finish_reason"]]
    assert events[-1]["choices"] == []
    assert events[-1]["usage"]["completion_tokens"] == whole["usage"]["completion_tokens"]
    assert "usage" not in events[0]
    assert events[-2]["lime"][0]["receipt"]["skills"] == whole["lime"][0]["receipt"]["skills"]


def test_without_the_option_a_stream_has_no_usage(url: str) -> None:
    assert all("usage" not in one and one["choices"] for one in chat(url, stream=True).events)


def test_the_second_of_two_equal_requests_reads_less(url: str) -> None:
    chat(url, messages=[{"role": "user", "content": "A request that is asked twice"}])
    again = chat(url, messages=[{"role": "user", "content": "A request that is asked twice"}]).json["usage"]
    assert again["prompt_tokens"] - 4 < again["prompt_tokens_details"]["cached_tokens"] < again["prompt_tokens"]


def test_fields_reach_the_runtime(url: str) -> None:
    settings: dict[str, Any] = {"temperature": 1.5, "top_p": 0.9, "top_k": 20, "seed": 7, "frequency_penalty": 0.5}
    expected = shared().generate(
        "Hello", "legal", max_new_tokens=9, presence_penalty=0.25, repetition_penalty=1.2, **settings
    )
    found = chat(
        url, max_completion_tokens=9, presence_penalty=0.25, repetition_penalty=1.2, user="me", priority=3, **settings
    )
    assert found.json["choices"][0]["message"]["content"] == expected.text
    stop = shared().generate("Hello", "legal", max_new_tokens=20).text[4]
    for given in (stop, [stop, "never said"]):
        cut = chat(url, max_tokens=20, stop=given, top_k=-1).json["choices"][0]
        assert cut["finish_reason"] == "stop"
        assert stop not in cut["message"]["content"]


def test_several_answers_have_seeds_of_their_own(url: str) -> None:
    fields: dict[str, Any] = {"n": 3, "temperature": 2.0, "seed": 5}
    found = chat(url, **fields).json
    expected = [shared().generate("Hello", "legal", max_new_tokens=6, temperature=2.0, seed=5 + n) for n in range(3)]
    assert [one["index"] for one in found["choices"]] == [0, 1, 2]
    assert [one["message"]["content"] for one in found["choices"]] == [one.text for one in expected]
    assert found["usage"]["completion_tokens"] == sum(len(one.token_ids) for one in expected)
    assert found["usage"]["prompt_tokens"] == expected[0].timings.prompt_tokens
    texts = ["", "", ""]
    events = chat(url, stream=True, stream_options={"include_usage": True}, **fields).events
    for one in events[:-1]:
        texts[one["choices"][0]["index"]] += one["choices"][0]["delta"].get("content", "")
    assert texts == [one.text for one in expected]
    assert events[-1]["usage"] == {
        **found["usage"],
        "prompt_tokens_details": events[-1]["usage"]["prompt_tokens_details"],
    }


def test_logprobs(url: str) -> None:
    expected = shared().generate("Hello", "legal", max_new_tokens=6, logprobs=2).logprobs
    assert expected is not None
    whole = chat(url, logprobs=True, top_logprobs=2).json["choices"][0]["logprobs"]["content"]
    assert [one["logprob"] for one in whole] == pytest.approx([one.logprob for one in expected], abs=1e-4)
    for one, own in zip(whole, expected, strict=True):
        assert [top["logprob"] for top in one["top_logprobs"]] == pytest.approx([v for _, v in own.top], abs=1e-4)
    streamed = chat(url, logprobs=True, top_logprobs=2, stream=True).events
    parts = [one["choices"][0]["logprobs"] for one in streamed]
    tokens = [token for part in parts if part for token in part["content"]]
    assert [token["bytes"] for token in tokens] == [token["bytes"] for token in whole]
    assert chat(url, logprobs=True).json["choices"][0]["logprobs"]["content"][0]["top_logprobs"] == []


def test_response_formats(url: str) -> None:
    schema = {"type": "object", "properties": {"kind": {"enum": ["a", "b"]}}, "required": ["kind"]}
    form = {"type": "json_schema", "json_schema": {"name": "kind", "schema": schema, "strict": True}}
    text = chat(url, response_format=form, max_tokens=60).json["choices"][0]["message"]["content"]
    assert text in ('{"kind": "a"}', '{"kind": "b"}')
    found = chat(url, response_format={"type": "json_object"}, max_tokens=5).json
    assert found["choices"][0]["message"]["content"].startswith("{")
    free = chat(url, response_format={"type": "text"}).json["choices"][0]["message"]["content"]
    assert free == chat(url).json["choices"][0]["message"]["content"]
    for bad in ({"type": "json_schema"}, {"type": "json_schema", "json_schema": {"schema": {"type": "nothing"}}}):
        refused = chat(url, response_format=bad)
        assert (refused.status, refused.json["error"]["type"]) == (400, "invalid_request_error")


def test_conversations_and_parts(url: str) -> None:
    parts = [{"type": "text", "text": "Hello"}]
    same = [chat(url, messages=[{"role": "user", "content": content}]).json for content in ("Hello", parts)]
    assert same[0]["choices"] == same[1]["choices"]
    messages = [{"role": "developer", "content": "Be brief."}, *HELLO]
    expected = shared().generate([{"role": "system", "content": "Be brief."}, *HELLO], "legal", max_new_tokens=6)
    assert chat(url, messages=messages).json["choices"][0]["message"]["content"] == expected.text


def test_unknown_fields_pass_with_a_warning(url: str) -> None:
    found = chat(url, logit_bias={}, service_tier="auto")
    assert found.status == 200
    assert found.headers["x-lime-warning"] == "ignored fields: logit_bias, service_tier"


@pytest.mark.parametrize("model", ["nope", f"{NAME}:nope", "auto", "", f"{NAME}:", f"{NAME}:{NAME}", "legal:brief"])
def test_an_unknown_model_is_never_the_base(url: str, model: str) -> None:
    found = chat(url, model)
    assert found.status == (404 if model else 400)
    assert found.json["error"]["param"] == "model"
    if model:
        assert found.json["error"]["code"] == "model_not_found"
        assert f"expected one of '{NAME}', 'legal', 'brief'" in found.json["error"]["message"]


@pytest.mark.parametrize(
    ("fields", "status", "param", "words"),
    [
        ({"max_tokens": 0, "temperature": "1", "n": 17}, 400, "max_tokens", "temperature"),
        ({"messages": []}, 400, "messages", "at least 1 item"),
        ({"messages": [{"role": "nobody", "content": "x"}]}, 400, None, "the role 'nobody'"),
        ({"messages": [{"role": "user", "content": "a" * 2000}]}, 400, "messages", "expected at most 256"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, 400, "messages", "expected text"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://x/"}}]}]},
            400,
            "messages",
            "this server fetches nothing",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "image", "path": "/etc/passwd"}]}]},
            400,
            "messages",
            "expected an object with the type text or image_url",
        ),
        ({"stop": [""]}, 400, "stop", "a stop string is empty"),
        ({"stop": ["x"] * 17}, 400, "stop", "at most 16"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, 400, "tools", "knows no tools"),
        ({"tool_choice": "required"}, 400, "tool_choice", "there are no tools"),
        ({"top_logprobs": 21}, 400, "top_logprobs", "20"),
    ],
)
def test_faults_are_named(url: str, fields: dict[str, Any], status: int, param: str | None, words: str) -> None:
    for stream in (False, True):
        found = chat(url, **{"stream": stream, **fields})
        assert found.status == status
        assert words in found.json["error"]["message"]
        assert found.json["error"]["param"] == param
        assert set(found.json["error"]) == {"message", "type", "param", "code"}


def test_a_prompt_that_does_not_fit_has_the_code_that_clients_look_for(url: str) -> None:
    found = chat(url, max_tokens=250)
    assert (found.status, found.json["error"]["code"]) == (400, "context_length_exceeded")
