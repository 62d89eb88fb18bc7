"""One request from its body to the end of its answers: what is counted, logged and told about it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel
from sse_starlette import EventSourceResponse
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import Response

from lime_edge.common.digests import canonical_json, json_digest
from lime_edge.errors import LimeError
from lime_edge.runtime import Generation
from lime_edge.server.formats.api_errors import ApiError, internal, of_lime_error
from lime_edge.server.formats.request_models import Sampling
from lime_edge.server.formats.response_models import CachedTokens, Usage
from lime_edge.server.operations.request_log import event

from .pieces import Answers, Piece, Row
from .serving import Serving

T = TypeVar("T")
GONE = 499  # the client has left; nobody reads this
WARNING_HEADER = "x-lime-warning"


class ClientGoneError(Exception):
    """The client has closed the connection."""


class Exchange:
    """A request for completions.

    Args:
        serving: The server.
        request: The HTTP request, whose body has been read.
        body: The same body.
        prefix: The beginning of its id.
    """

    def __init__(self, serving: Serving, request: Request, body: Sampling, prefix: str) -> None:
        self.serving, self.body = serving, body
        self._request = request
        self.id = f"{prefix}-{request.state.request_id}"
        self.created = int(time.time())
        self._started = time.perf_counter()
        self._first = self._last = 0.0
        self.ended: dict[int, Generation] = {}
        self._answers: Answers | None = None
        self._logged = False
        self._prompts = 1

    @property
    def common(self) -> dict[str, Any]:
        """Fields of all answers to this request."""
        digest = self.serving.runtime.contract.graph_digest
        return {
            "id": self.id,
            "created": self.created,
            "model": self.body.model,
            "system_fingerprint": f"fp_{digest[:12]}",
        }

    @property
    def headers(self) -> dict[str, str]:
        """Headers of the answer: which fields of the body meant nothing."""
        unknown = self.body.unknown
        names = ", ".join(ascii(name)[1:-1] for name in unknown)
        return {WARNING_HEADER: f"ignored fields: {names[:400]}"} if unknown else {}

    async def open(self, skill: str | None, prompts: Sequence[Any], raw: bool, settings: dict[str, Any]) -> None:
        """Ask for `n` answers to each prompt, and wait for the first piece.

        Raises:
            ApiError, LimeError: The request is invalid, or there is no room for it.
            ClientGoneError: The client did not wait.
        """
        count = self.body.n or 1
        limits = self.serving.settings.limits
        if len(prompts) * count > limits.rows:
            raise ApiError(400, f"{len(prompts)} prompts with n = {count}; expected at most {limits.rows} answers", "n")
        self._prompts = len(prompts)
        more = {
            "timeout": limits.request_seconds,
            "user": self._user,
            "priority": None if self.body.priority is None else max(-100, min(100, self.body.priority)),
        }
        rows = [Row(prompt, {**_nth(settings, at), **more}) for prompt in prompts for at in range(count)]
        self._answers = Answers(self.serving.runtime, skill, raw, rows)
        try:
            await self.unless_gone(self._answers.begin())
        except BaseException:
            self._answers.close()
            raise

    async def pieces(self) -> AsyncIterator[Piece]:
        """The pieces of all rows; the rows that are not finished are stopped when this ends early."""
        assert self._answers is not None
        metrics = self.serving.metrics
        try:
            async for piece in self._answers:
                if piece.tokens:
                    now = time.perf_counter()
                    if not self._first:
                        self._first = now
                        metrics.first_token.observe(now - self._started)
                    else:
                        metrics.between_tokens.observe((now - self._last) / piece.tokens)
                    self._last = now
                if piece.ended is not None:
                    self.ended[piece.row] = piece.ended
                    times = piece.ended.timings
                    metrics.ended(piece.ended.finish_reason, times.prompt_tokens, times.new_tokens)
                yield piece
        finally:
            self.close()

    async def finish(self) -> None:
        """Wait until all rows have ended.

        Raises:
            ClientGoneError: The client did not wait.
        """
        await self.unless_gone(self._drain())

    async def _drain(self) -> None:
        async for _ in self.pieces():
            pass

    def events(self, encode: Callable[[Piece], Iterable[BaseModel]], opening: Iterable[BaseModel]) -> Response:
        """A stream of server-sent events.

        Args:
            encode: The events of a piece.
            opening: The events before all pieces.
        """
        limits = self.serving.settings.limits
        return EventSourceResponse(
            self._encoded(encode, opening),
            headers=self.headers,
            sep="\n",
            send_timeout=limits.send_seconds,
            shutdown_grace_period=limits.drain_seconds,
            background=BackgroundTask(self.close),
        )

    async def _encoded(
        self, encode: Callable[[Piece], Iterable[BaseModel]], opening: Iterable[BaseModel]
    ) -> AsyncIterator[dict[str, str]]:
        try:
            for model in opening:
                yield {"data": model.model_dump_json()}
            async for piece in self.pieces():
                for model in encode(piece):
                    yield {"data": model.model_dump_json()}
        except LimeError as error:
            yield {"data": canonical_json(self.failed(of_lime_error(error), error).body).decode()}
            return
        except Exception as error:  # noqa: BLE001  (the status has been sent: the client is told in the stream)
            yield {"data": canonical_json(self.failed(internal(), error).body).decode()}
            return
        yield {"data": "[DONE]"}

    def failed(self, shown: ApiError, error: BaseException) -> ApiError:
        """Log an error that ended the answers; returns what the client is told."""
        self.serving.metrics.refused(shown.status)
        event("failed", request=self.id, model=self.body.model, status=shown.status, error=error)
        return shown

    def usage(self) -> Usage:
        """Tokens of the answers that have ended."""
        rows = range(0, self._prompts * (self.body.n or 1), self.body.n or 1)  # the first one of each prompt
        firsts = [self.ended[row].timings for row in rows if row in self.ended]
        prompt = sum(times.prompt_tokens for times in firsts)
        new = sum(one.timings.new_tokens for one in self.ended.values())
        cached = CachedTokens(cached_tokens=sum(times.reused_tokens for times in firsts))
        return Usage(
            prompt_tokens=prompt, completion_tokens=new, total_tokens=prompt + new, prompt_tokens_details=cached
        )

    def told(self, row: int) -> dict[str, Any]:
        """What only this server tells of an answer."""
        generation = self.ended[row]
        times = generation.timings
        return {
            "index": row,
            "receipt_id": receipt_id(generation),
            "receipt": generation.receipt,
            "timings": {
                "prefill_seconds": round(times.prefill_seconds, 6),
                "decode_seconds": round(times.decode_seconds, 6),
                "tokens_per_second": round(times.tokens_per_second, 2),
                "drafted_tokens": times.drafted_tokens,
                "accepted_tokens": times.accepted_tokens,
            },
        }

    def close(self) -> None:
        """Stop what has not ended, and log the request; may be called again."""
        if self._answers is not None:
            self._answers.close()
        if self._logged:
            return
        self._logged = True
        took = time.perf_counter() - self._started
        self.serving.metrics.whole_request.observe(took)
        self._log(took)

    def _log(self, took: float) -> None:
        usage = self.usage()
        first = next(iter(self.ended.values()), None)
        event(
            "answered",
            request=self.id,
            client=self._request.state.client,
            model=self.body.model,
            stream=bool(self.body.stream),
            prompt_tokens=usage.prompt_tokens,
            cached_tokens=usage.prompt_tokens_details.cached_tokens,
            completion_tokens=usage.completion_tokens,
            reasons=[one.finish_reason for _, one in sorted(self.ended.items())],
            receipt=None if first is None else receipt_id(first),
            seconds=round(took, 4),
            first_token_seconds=round(self._first - self._started, 4) if self._first else None,
            ignored=self.body.unknown or None,
            body=self.body.model_dump(exclude_unset=True) if self.serving.settings.log_prompts else None,
            texts=[one.text for one in self.ended.values()] if self.serving.settings.log_prompts else None,
        )

    @property
    def _user(self) -> str:
        """The key of fairness: the client, and below it whom it asks for."""
        client: str = self._request.state.client
        return client if self.body.user is None else f"{client}/{self.body.user}"

    async def unless_gone(self, wanted: Coroutine[Any, Any, T]) -> T:
        """The result, unless the client leaves first."""
        task = asyncio.ensure_future(wanted)
        gone = asyncio.ensure_future(_left(self._request))
        try:
            await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                raise ClientGoneError
            return task.result()
        finally:
            for one in (task, gone):
                one.cancel()


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _nth(settings: dict[str, Any], number: int) -> dict[str, Any]:
    """Settings of the nth answer: with a seed, each has its own."""
    seed = settings["seed"]
    return settings if seed is None else {**settings, "seed": (seed + number) % 2**63}


def receipt_id(generation: Generation) -> str:
    """Names the receipt of an answer, for the log: equal receipts have equal ids."""
    return json_digest(generation.receipt)[:32]
