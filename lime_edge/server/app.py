"""The ASGI application: endpoints, errors in one form, and what starts and stops with it."""

from __future__ import annotations

import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, PlainTextResponse
from fastapi.routing import APIRoute
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware

from lime_edge import __version__
from lime_edge.common.strict_json import load_json, show
from lime_edge.errors import LimeError
from lime_edge.runtime import Runtime
from lime_edge.server.formats.api_errors import ApiError, internal, of_lime_error, of_validation
from lime_edge.server.formats.chat_messages import to_prompt
from lime_edge.server.formats.request_models import (
    ChatRequest,
    CompletionRequest,
    LoadAdapterRequest,
    TokenizeRequest,
    UnloadAdapterRequest,
)
from lime_edge.server.formats.response_models import (
    ChatCompletion,
    Completion,
    ErrorBody,
    Health,
    ModelCard,
    ModelList,
    Tokenized,
)
from lime_edge.server.operations.api_keys import ApiKeys
from lime_edge.server.operations.request_guard import RequestGuard
from lime_edge.server.operations.request_log import event
from lime_edge.server.operations.server_metrics import ServerMetrics
from lime_edge.server.operations.server_settings import ServerSettings
from lime_edge.server.operations.skill_watcher import SkillWatcher

from .adapter_endpoints import load_adapter, unload_adapter
from .chat_completions import complete_chat
from .completions import complete_text
from .exchange import GONE, ClientGoneError
from .page import CONTENT_POLICY, page
from .served_models import ServedModels
from .serving import Serving

_ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorBody} for status in (400, 401, 403, 404, 408, 413, 421, 429, 500, 501, 503)
}


class _StrictRequest(Request):
    async def json(self) -> Any:
        """The body as strict JSON: no duplicate keys, no NaN, bounded in depth and in the number of values."""
        if not hasattr(self, "_json"):
            self._json = await self._parsed()
        return self._json

    async def _parsed(self) -> Any:
        try:
            return load_json(await self.body())
        except UnicodeDecodeError as error:
            raise ApiError(400, f"the body is not UTF-8: {error.reason} at byte {error.start}") from error
        except ValueError as error:
            raise ApiError(400, f"the body is not JSON that can be used: {error!s:.300}") from error


class _StrictRoute(APIRoute):
    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handler(request: Request) -> Response:
            strict = _StrictRequest(request.scope, request.receive)
            if request.method == "POST":
                await strict.json()  # FastAPI would answer errors of its own
            return await handle(strict)

        return handler


def create_app(
    runtime: Runtime,
    settings: ServerSettings,
    name: str,
    watcher: SkillWatcher | None = None,
    keys: ApiKeys | None = None,
) -> FastAPI:
    """The application that serves a runtime.

    Args:
        runtime: The model; its scheduler is driven while the application runs.
        settings: Of the server.
        name: The name of the base.
        watcher: Keeps the skills current; started and stopped with the application.
        keys: Who may use it; None: anyone.
    """
    models = ServedModels(runtime, name, int(time.time()))
    diagnostics = (lambda: []) if watcher is None else watcher.diagnostics
    metrics = ServerMetrics(name, runtime.scheduler.stats, lambda: len(diagnostics()))
    serving = Serving(runtime, models, metrics, settings, diagnostics)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        stop = threading.Event()
        driver = threading.Thread(target=runtime.scheduler.run, args=(stop,), name="lime-scheduler", daemon=True)
        driver.start()
        if watcher is not None:
            watcher.start()
        event("started", model=name, skills=sorted(models.skills()), version=__version__)
        yield
        if watcher is not None:
            await run_in_threadpool(watcher.stop)
        stop.set()
        runtime.scheduler.wake()
        await run_in_threadpool(driver.join)
        event("stopped", model=name)

    app = FastAPI(
        title="lime-edge",
        version=__version__,
        summary="One small language model and its skills, with the API of OpenAI.",
        lifespan=lifespan,
        docs_url=None,  # these pages load scripts from other sites
        redoc_url=None,
        responses=_ERRORS,
    )
    app.router.route_class = _StrictRoute
    _add_operations(app, serving)
    _add_models(app, serving)
    _add_answers(app, serving)
    _add_errors(app, serving)
    app.add_middleware(RequestGuard, settings=settings, keys=keys, refused=metrics.refused)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(settings.cors_origins),
            allow_methods=["GET", "POST"],
            allow_headers=["authorization", "content-type"],
            expose_headers=["x-request-id", "x-lime-warning", "retry-after"],
        )
    return app


def _add_operations(app: FastAPI, serving: Serving) -> None:
    @app.get("/health")
    async def health() -> Health:
        """The server is there."""
        return Health()

    @app.get("/metrics", response_class=PlainTextResponse)
    async def metrics() -> Response:
        """Metrics for Prometheus."""
        return Response(serving.metrics.page(), media_type="text/plain; version=0.0.4; charset=utf-8")

    if serving.settings.page:

        @app.get("/", include_in_schema=False)
        async def index() -> HTMLResponse:
            return HTMLResponse(page(), headers={"Content-Security-Policy": CONTENT_POLICY})


def _add_models(app: FastAPI, serving: Serving) -> None:
    @app.get("/v1/models", response_model_exclude_none=True)
    async def models() -> ModelList:
        """The base, its skills, and why other skills are not there."""
        return ModelList(data=await run_in_threadpool(serving.models.cards), diagnostics=list(serving.diagnostics()))

    @app.get("/v1/models/{model}", response_model_exclude_none=True)
    async def model(model: str) -> ModelCard:
        """The base or one skill."""
        return serving.models.card(model)

    @app.post("/v1/load_lora_adapter", response_class=PlainTextResponse)
    def load(body: LoadAdapterRequest) -> str:
        """Load a skill, if the operator allows it."""
        return load_adapter(serving, body)

    @app.post("/v1/unload_lora_adapter", response_class=PlainTextResponse)
    def unload(body: UnloadAdapterRequest) -> str:
        """Unload a skill, if the operator allows it."""
        return unload_adapter(serving, body)


def _add_answers(app: FastAPI, serving: Serving) -> None:
    @app.post("/v1/chat/completions", response_model=ChatCompletion)
    async def chat_completions(request: Request, body: ChatRequest) -> Response:
        """Answer a conversation; with `stream`, as server-sent events of chat.completion.chunk objects."""
        return await complete_chat(serving, request, body)

    @app.post("/v1/completions", response_model=Completion)
    async def completions(request: Request, body: CompletionRequest) -> Response:
        """Continue texts; with `stream`, as server-sent events of text_completion objects."""
        return await complete_text(serving, request, body)

    @app.post("/tokenize")
    def tokenize(body: TokenizeRequest) -> Tokenized:
        """The tokens that a prompt or a conversation is read as."""
        if (body.prompt is None) == (body.messages is None):
            raise ApiError(400, "expected either prompt or messages", "prompt")
        skill = serving.models.skill(body.model)
        if body.messages is not None:
            tokens = serving.runtime.tokenize(to_prompt(body.messages), skill)
        else:
            tokens = serving.runtime.tokenize(body.prompt or "", skill, raw=True)
        return Tokenized(count=len(tokens), max_model_len=serving.runtime.context_length, tokens=list(tokens))


def _add_errors(app: FastAPI, serving: Serving) -> None:
    def answered(error: ApiError) -> Response:
        serving.metrics.refused(error.status)
        return error.response()

    @app.exception_handler(ApiError)
    async def of_api(request: Request, error: ApiError) -> Response:
        return answered(error)

    @app.exception_handler(LimeError)
    async def of_library(request: Request, error: LimeError) -> Response:
        shown = of_lime_error(error)
        if shown.status >= 500:
            event("failed", request=request.state.request_id, status=shown.status, error=error)
        return answered(shown)

    @app.exception_handler(RequestValidationError)
    async def of_body(request: Request, error: RequestValidationError) -> Response:
        if isinstance(error.body, bytes):  # FastAPI parses JSON alone, and only where the header names it
            given = request.headers.get("content-type")
            message = f"the content type is {'missing' if given is None else show(given)}; expected application/json"
            return answered(ApiError(415, message, code="unsupported_media_type"))
        return answered(of_validation(error.errors()))

    @app.exception_handler(HTTPException)
    async def of_http(request: Request, error: HTTPException) -> Response:
        return answered(ApiError(error.status_code, str(error.detail), headers=error.headers))

    @app.exception_handler(ClientGoneError)
    async def of_client(request: Request, error: ClientGoneError) -> Response:
        return Response(status_code=GONE)

    @app.exception_handler(Exception)
    async def of_anything(request: Request, error: Exception) -> Response:
        event("failed", request=getattr(request.state, "request_id", None), status=500, error=error)
        return answered(internal())
