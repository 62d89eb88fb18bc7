"""POST /v1/completions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from lime_edge.server.formats.api_errors import ApiError
from lime_edge.server.formats.request_models import CompletionRequest
from lime_edge.server.formats.response_models import Completion, CompletionChoice, CompletionLogprobs
from lime_edge.server.formats.token_texts import completion_logprobs

from .exchange import Exchange
from .pieces import Piece
from .serving import Serving


async def complete_text(serving: Serving, request: Request, body: CompletionRequest) -> Response:
    """Continue texts, without chat template and interface.

    Raises:
        ApiError, LimeError: The request is invalid, or there is no room for it.
        ClientGoneError: The client did not wait.
    """
    skill = serving.models.skill(body.model)
    for name in ("echo", "suffix"):
        if getattr(body, name):
            raise ApiError(400, f"{name} is not supported; send the request without it", name, "unsupported_value")
    prompts = [body.prompt] if isinstance(body.prompt, str) else body.prompt
    exchange = Exchange(serving, request, body, "cmpl")
    await exchange.open(skill, prompts, True, body.settings())
    texts = _Texts(exchange, body, len(prompts) * (body.n or 1))
    if body.stream:
        return exchange.events(texts.chunks, ())
    await exchange.finish()
    return texts.whole()


class _Texts:
    """Writes the answers of one request, whole or as chunks."""

    def __init__(self, exchange: Exchange, body: CompletionRequest, rows: int) -> None:
        self._exchange, self._body, self._rows = exchange, body, rows
        self._written = [0] * rows  # characters so far

    def chunks(self, piece: Piece) -> Iterator[Completion]:
        """The chunks of a piece; after the last one of all answers, that of the usage."""
        logprobs = self._logprobs(piece)
        if piece.text or logprobs is not None or piece.ended is not None:
            reason: Any = None if piece.ended is None else piece.ended.finish_reason
            choice = CompletionChoice(index=piece.row, text=piece.text, logprobs=logprobs, finish_reason=reason)
            made = Completion(**self._exchange.common, choices=[choice])
            if piece.ended is not None:
                made.lime = [self._exchange.told(piece.row)]
            yield made
        if piece.ended is not None and self._body.usage_chunk and len(self._exchange.ended) == self._rows:
            yield Completion(**self._exchange.common, choices=[], usage=self._exchange.usage())

    def whole(self) -> Response:
        """The answers of a request without a stream."""
        exchange, choices = self._exchange, []
        for row, generation in sorted(exchange.ended.items()):
            logprobs = None
            if generation.logprobs is not None:
                logprobs = completion_logprobs(exchange.serving.runtime, generation.logprobs)
            reason: Any = generation.finish_reason
            choices.append(CompletionChoice(index=row, text=generation.text, logprobs=logprobs, finish_reason=reason))
        told = [exchange.told(choice.index) for choice in choices]
        made = Completion(**exchange.common, choices=choices, usage=exchange.usage(), lime=told)
        return Response(made.model_dump_json(), media_type="application/json", headers=exchange.headers)

    def _logprobs(self, piece: Piece) -> CompletionLogprobs | None:
        if not piece.logprobs:
            return None
        found = completion_logprobs(self._exchange.serving.runtime, piece.logprobs, self._written[piece.row])
        self._written[piece.row] += sum(map(len, found.tokens))
        return found
