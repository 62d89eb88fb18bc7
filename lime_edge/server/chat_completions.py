"""POST /v1/chat/completions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from lime_edge.server.formats.api_errors import ApiError
from lime_edge.server.formats.chat_messages import to_prompt
from lime_edge.server.formats.request_models import ChatRequest
from lime_edge.server.formats.response_models import (
    ChatChoice,
    ChatChunk,
    ChatChunkChoice,
    ChatCompletion,
    ChatDelta,
    ChatLogprobs,
    ChatMessage,
    ToolCall,
    ToolCallDelta,
)
from lime_edge.server.formats.token_texts import chat_logprobs
from lime_edge.server.formats.tool_calls import OPENING, ToolText, call_form, must_call, tools_of

from .exchange import Exchange
from .pieces import Piece
from .serving import Serving


async def complete_chat(serving: Serving, request: Request, body: ChatRequest) -> Response:
    """Answer a conversation.

    Raises:
        ApiError, LimeError: The request is invalid, or there is no room for it.
        ClientGoneError: The client did not wait.
    """
    skill = serving.models.skill(body.model)
    settings, prompt = body.settings(), to_prompt(body.messages)
    tools = tools_of(body)
    if tools:
        prompt = _with_tools(serving, body, prompt, settings)
    exchange = Exchange(serving, request, body, "chatcmpl")
    await exchange.open(skill, [prompt], False, settings)
    chat = _Chat(exchange, body, bool(tools))
    if body.stream:
        return exchange.events(chat.chunks, chat.opening())
    await exchange.finish()
    return chat.whole()


def _with_tools(serving: Serving, body: ChatRequest, prompt: Any, settings: dict[str, Any]) -> Any:
    """Add tools to the settings; returns the prompt, which a forced call continues."""
    if not serving.runtime.takes_tools:
        raise ApiError(400, "the chat template of this model knows no tools; send none", "tools", "unsupported_value")
    tools = tools_of(body)
    settings["tools"] = [tool.model_dump(exclude_none=True) for tool in tools]
    messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    if not must_call(body):
        return messages
    if settings["answers"] is not None:
        raise ApiError(400, "response_format and a forced tool_choice exclude each other", "response_format")
    settings["answers"] = call_form(tools)
    return [*messages, {"role": "assistant", "content": f"{OPENING}\n"}]


class _Chat:
    """Writes the answers of one request, whole or as chunks."""

    def __init__(self, exchange: Exchange, body: ChatRequest, tools: bool) -> None:
        self._exchange, self._body = exchange, body
        count = body.n or 1
        self._texts = [ToolText(must_call(body)) for _ in range(count)] if tools else None

    def opening(self) -> Iterator[ChatChunk]:
        """The chunk of every answer that tells its role."""
        for row in range(self._body.n or 1):
            yield self._chunk(row, ChatDelta(role="assistant", content=""))

    def chunks(self, piece: Piece) -> Iterator[ChatChunk]:
        """The chunks of a piece; after the last one of all answers, that of the usage."""
        text = piece.text if self._texts is None else self._texts[piece.row].push(piece.text)
        logprobs = self._logprobs(piece)
        if text or logprobs is not None:
            yield self._chunk(piece.row, ChatDelta(content=text), logprobs)
        if piece.ended is None:
            return
        rest, calls = ("", []) if self._texts is None else self._texts[piece.row].end()
        if rest:
            yield self._chunk(piece.row, ChatDelta(content=rest))
        for number, call in enumerate(calls):
            delta = ToolCallDelta(index=number, **call.model_dump())
            yield self._chunk(piece.row, ChatDelta(tool_calls=[delta]))
        last = self._chunk(piece.row, ChatDelta())
        last.choices[0].finish_reason = "tool_calls" if calls else _reason(piece)
        last.lime = [self._exchange.told(piece.row)]
        yield last
        if self._body.usage_chunk and len(self._exchange.ended) == (self._body.n or 1):
            yield ChatChunk(**self._exchange.common, choices=[], usage=self._exchange.usage())

    def whole(self) -> Response:
        """The answers of a request without a stream."""
        exchange = self._exchange
        choices = [self._choice(row) for row in sorted(exchange.ended)]
        told = [exchange.told(row) for row in sorted(exchange.ended)]
        made = ChatCompletion(**exchange.common, choices=choices, usage=exchange.usage(), lime=told)
        return Response(made.model_dump_json(), media_type="application/json", headers=exchange.headers)

    def _choice(self, row: int) -> ChatChoice:
        generation = self._exchange.ended[row]
        said, calls = generation.text, list[ToolCall]()
        if self._texts is not None:
            said = self._texts[row].push(generation.text)
            rest, calls = self._texts[row].end()
            said += rest
        message = ChatMessage(content=said if said or not calls else None, tool_calls=calls or None)
        logprobs = None
        if generation.logprobs is not None:
            logprobs = chat_logprobs(self._exchange.serving.runtime, generation.logprobs)
        reason: Any = "tool_calls" if calls else generation.finish_reason
        return ChatChoice(index=row, message=message, logprobs=logprobs, finish_reason=reason)

    def _logprobs(self, piece: Piece) -> ChatLogprobs | None:
        return chat_logprobs(self._exchange.serving.runtime, piece.logprobs) if piece.logprobs else None

    def _chunk(self, row: int, delta: ChatDelta, logprobs: ChatLogprobs | None = None) -> ChatChunk:
        choice = ChatChunkChoice(index=row, delta=delta, logprobs=logprobs)
        return ChatChunk(**self._exchange.common, choices=[choice])


def _reason(piece: Piece) -> Any:
    return None if piece.ended is None else piece.ended.finish_reason
