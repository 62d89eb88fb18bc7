"""The official Python client of OpenAI's API, with and without streams, waiting and asyncio."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from pydantic import BaseModel

from tests.server.served import HELLO, NAME, running, shared

MESSAGES: Any = HELLO
MOST = 12


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with running() as found:
        yield f"{found}/v1"


@pytest.fixture
def client(url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=url, api_key="any", max_retries=0) as made:
        yield made


def expected(skill: str | None = "legal", **settings: Any) -> str:
    text: str = shared().generate("Hello", skill, max_new_tokens=MOST, **settings).text
    return text


def test_chat(client: openai.OpenAI) -> None:
    found = client.chat.completions.create(model="legal", messages=MESSAGES, max_tokens=MOST)
    assert found.choices[0].message.content == expected()
    assert found.usage is not None
    assert found.usage.total_tokens == found.usage.prompt_tokens + found.usage.completion_tokens
    assert found.usage.prompt_tokens_details is not None


def test_chat_in_pieces(client: openai.OpenAI) -> None:
    text, usage = "", None
    options: Any = {"include_usage": True}
    with client.chat.completions.create(
        model=f"{NAME}:brief", messages=MESSAGES, max_tokens=MOST, stream=True, stream_options=options
    ) as stream:
        for chunk in stream:
            text += chunk.choices[0].delta.content or "" if chunk.choices else ""
            usage = chunk.usage or usage
    assert text == expected("brief")
    assert usage is not None
    assert usage.completion_tokens > 0


def test_asyncio(url: str) -> None:
    async def talk() -> tuple[list[str | None], str]:
        async with openai.AsyncOpenAI(base_url=url, api_key="any", max_retries=0) as made:
            models = ["legal", "brief", NAME]
            asked = [made.chat.completions.create(model=model, messages=MESSAGES, max_tokens=MOST) for model in models]
            together = await asyncio.gather(*asked)
            stream = await made.chat.completions.create(model="legal", messages=MESSAGES, max_tokens=MOST, stream=True)
            pieces = [chunk.choices[0].delta.content or "" async for chunk in stream]
            return [one.choices[0].message.content for one in together], "".join(pieces)

    together, streamed = asyncio.run(talk())
    assert together == [expected("legal"), expected("brief"), expected(None)]
    assert streamed == expected("legal")


class Kind(BaseModel):
    """What the answer has to be."""

    sure: bool
    level: int


def test_a_schema_that_pydantic_made(client: openai.OpenAI) -> None:
    form: Any = {"type": "json_schema", "json_schema": {"name": "kind", "schema": Kind.model_json_schema()}}
    found = client.chat.completions.create(
        model="legal", messages=MESSAGES, max_tokens=60, response_format=form, frequency_penalty=1.5
    )
    content = found.choices[0].message.content or ""
    if found.choices[0].finish_reason == "stop":
        Kind.model_validate_json(content)
    assert content.startswith('{"sure": ')


def test_parse(client: openai.OpenAI) -> None:
    class Sure(BaseModel):
        sure: bool

    found = client.chat.completions.parse(model="legal", messages=MESSAGES, response_format=Sure, max_tokens=40)
    assert isinstance(found.choices[0].message.parsed, Sure)


def test_logprobs(client: openai.OpenAI) -> None:
    found = client.chat.completions.create(
        model="legal", messages=MESSAGES, max_tokens=MOST, logprobs=True, top_logprobs=3
    )
    answer = shared().generate("Hello", "legal", max_new_tokens=MOST, logprobs=3)
    assert answer.logprobs is not None
    assert found.choices[0].logprobs is not None
    content = found.choices[0].logprobs.content or []
    assert [one.logprob for one in content] == pytest.approx([one.logprob for one in answer.logprobs], abs=1e-4)
    assert all(len(one.top_logprobs) == 3 for one in content)


def test_completions_and_models(client: openai.OpenAI) -> None:
    found = client.completions.create(model="legal", prompt=["Hello", "no"], max_tokens=4, n=2, temperature=1.0, seed=1)
    assert len(found.choices) == 4
    stream = client.completions.create(model="legal", prompt="Hello", max_tokens=4, stream=True)
    text = "".join(chunk.choices[0].text for chunk in stream)
    assert text == shared().generate("Hello", "legal", raw=True, max_new_tokens=4).text
    assert [model.id for model in client.models.list()] == [NAME, "legal", "brief"]
    assert client.models.retrieve("legal").id == "legal"


def test_errors_are_those_of_the_client(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        client.chat.completions.create(model="nope", messages=MESSAGES)
    assert (missing.value.param, missing.value.code) == ("model", "model_not_found")
    with pytest.raises(openai.BadRequestError) as long:
        client.chat.completions.create(model="legal", messages=MESSAGES, max_tokens=5000)
    assert long.value.code == "context_length_exceeded"
    with pytest.raises(openai.BadRequestError, match="temperature"):
        client.chat.completions.create(model="legal", messages=MESSAGES, temperature=-1)


def test_fields_of_other_servers(client: openai.OpenAI) -> None:
    extra = {"top_k": 5, "repetition_penalty": 1.1, "priority": 1}
    found = client.chat.completions.with_raw_response.create(
        model="legal", messages=MESSAGES, max_tokens=3, extra_body={**extra, "guided": 1}, temperature=0.5, seed=1
    )
    assert found.headers["x-lime-warning"] == "ignored fields: guided"
    told = json.loads(found.text)["lime"][0]
    assert told["receipt"]["skills"][0]["name"] == "legal"
