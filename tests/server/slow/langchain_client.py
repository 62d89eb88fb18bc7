"""LangChain's ChatOpenAI against a running server."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from langchain_core.messages import HumanMessage, SystemMessage
from langchain_openai import ChatOpenAI
from pydantic import BaseModel, SecretStr

from tests.server.served import HELLO, running, shared

pytestmark = pytest.mark.filterwarnings("default")


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with running() as found:
        yield f"{found}/v1"


def model(url: str, **settings: Any) -> ChatOpenAI:
    key = SecretStr("any")
    return ChatOpenAI(base_url=url, api_key=key, model="legal", max_tokens=12, temperature=0, max_retries=0, **settings)


def expected(prompt: Any = "Hello") -> str:
    text: str = shared().generate(prompt, "legal", max_new_tokens=12).text
    return text


def test_invoke_batch_and_stream(url: str) -> None:
    llm = model(url)
    found = llm.invoke("Hello")
    assert found.content == expected()
    assert found.usage_metadata is not None
    assert found.usage_metadata["output_tokens"] > 0
    messages = [SystemMessage("Be brief."), HumanMessage("Hello")]
    chat = [{"role": "system", "content": "Be brief."}, *HELLO]
    assert llm.invoke(messages).content == expected(chat)
    assert [one.content for one in llm.batch(["Hello", "no"])] == [expected(), expected("no")]
    assert "".join(str(piece.content) for piece in llm.stream("Hello")) == expected()


def test_asyncio(url: str) -> None:
    async def talk() -> str:
        return "".join([str(piece.content) async for piece in model(url).astream("Hello")])

    assert asyncio.run(talk()) == expected()


class Sure(BaseModel):
    """Whether something is sure."""

    sure: bool


def test_structured_output(url: str) -> None:
    llm = model(url).model_copy(update={"max_tokens": 40})
    found = llm.with_structured_output(Sure, method="json_schema").invoke("Hello")
    assert isinstance(found, Sure)
