"""Many machines with Ray Serve: a front that reads the model's name, and replicas that hold the model and some skills.

Ray routes a request to a replica that has its skill loaded (multiplexing), and adds replicas when queues grow. A
replica is the application of `app.py`; requests and answers pass between both as ASGI messages. docs/server/ray.md.

    serve run lime_edge.server.ray:build model=/models/smollm2 skills.legal=hf://acme/skills/legal.lime
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, MutableMapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict
from ray import serve
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from lime_edge.common.strict_json import load_json
from lime_edge.errors import LimeError
from lime_edge.runtime import Runtime, SchedulerSettings
from lime_edge.server.operations.api_keys import ApiKeys
from lime_edge.server.operations.request_guard import RequestGuard
from lime_edge.server.operations.server_settings import ServerSettings
from lime_edge.store.store import Store
from lime_edge.store.transfer import pull

from .app import create_app
from .served_models import SEPARATOR

Message = MutableMapping[str, Any]
Stream = AsyncIterator[Message]
LOADED = 64  # skills of one replica; one takes some hundred KB


class RaySettings(BaseModel):
    """What `serve run` and a Serve config file give as arguments."""

    model_config = ConfigDict(extra="forbid")

    model: str  # an exported model directory, the same on every machine
    name: str = "base"  # what clients call the base
    skills: dict[str, str] = {}  # reference (docs/store.md) by name
    trust: str | None = None
    api_keys: str | None = None  # None: any key; Ray itself listens on loopback by default
    rows: int = 8  # answers of one replica that run together; more make replicas, up to `most`
    least: int = 1  # replicas
    most: int = 4
    cpus: float = 2.0  # of one replica
    threads: int | None = None


class LoadedSkill:
    """A skill in a replica; Ray drops the one that was used least recently, which unloads it."""

    def __init__(self, runtime: Runtime, name: str) -> None:
        self._runtime, self._name = runtime, name

    def __del__(self) -> None:
        with contextlib.suppress(LimeError):
            self._runtime.unload_skill(self._name)


class Replica:
    """One model with some skills.

    Args:
        settings: Of the deployment.
    """

    def __init__(self, settings: RaySettings) -> None:
        self._settings = settings
        scheduler = SchedulerSettings(rows=settings.rows, waiting=8 * settings.rows)
        self._runtime = Runtime.load(
            settings.model, threads=settings.threads, trust=settings.trust, scheduler=scheduler
        )
        # Only the front, which has checked the key, reaches a replica: this address is never listened on.
        self._app = create_app(self._runtime, ServerSettings(host="replica", insecure=True), settings.name)
        self._running = self._app.router.lifespan_context(self._app)
        self._started = False
        self._lock = asyncio.Lock()

    async def answer(self, scope: Message, body: bytes) -> Stream:
        """Yield the ASGI messages of an answer; the skill that Ray names is loaded first."""
        async with self._lock:
            if not self._started:
                await self._running.__aenter__()
                self._started = True
        if name := serve.get_multiplexed_model_id():
            await self.skill(name)
        async for message in messages(self._app, scope, body):
            yield message

    @serve.multiplexed(max_num_models_per_replica=LOADED)
    async def skill(self, name: str) -> LoadedSkill:
        """Load a skill from its reference."""
        return await asyncio.to_thread(self._load, name)

    def _load(self, name: str) -> LoadedSkill:
        reference = self._settings.skills[name]
        path = Path(reference)
        if not path.is_file():
            path = pull(Store(), reference, self._runtime.trust).path
        self._runtime.load_skill(path, name, replace=True)
        return LoadedSkill(self._runtime, name)


class Front:
    """Reads requests, checks keys, and passes them to a replica that has the skill.

    Args:
        settings: Of the deployment.
        replicas: Ray's handle of them.
    """

    def __init__(self, settings: RaySettings, replicas: Any) -> None:
        self._settings, self._replicas = settings, replicas
        keys = None if settings.api_keys is None else ApiKeys.read(settings.api_keys)
        # Without keys the Host header is checked, as by `lime-edge serve`.
        self._guard = RequestGuard(self._pass_on, ServerSettings(), keys, lambda status: None)

    async def __call__(self, request: Request) -> Response:
        """Answer one HTTP request."""
        found = messages(self._guard, dict(request.scope), await request.body())
        return await as_response(found)

    async def _pass_on(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = (await receive())["body"]
        handle = self._replicas.options(stream=True, multiplexed_model_id=self.skill_of(body))
        found = handle.answer.remote(_plain(scope), body)
        try:
            async for message in found:
                await send(message)
        finally:
            found.cancel()

    def skill_of(self, body: bytes) -> str:
        """The skill that a body names; empty for the base, and for what a replica will refuse."""
        try:
            model = load_json(body)["model"]
        except (ValueError, TypeError, KeyError):
            return ""
        name = model.removeprefix(self._settings.name + SEPARATOR) if isinstance(model, str) else ""
        return name if name in self._settings.skills else ""


def _plain(scope: Scope) -> Message:
    """The parts of a scope that another process can use; the client is the one that the front knows."""
    kept = ("type", "http_version", "method", "scheme", "path", "raw_path", "query_string", "headers", "server")
    known = {key: scope[key] for key in kept if key in scope}
    return {**known, "root_path": "", "client": (scope["state"]["client"], 0), "asgi": {"version": "3.0"}}


async def messages(app: ASGIApp, scope: Message, body: bytes) -> Stream:
    """Run an ASGI application for one request; yields what it sends. If this ends early, the client has left."""
    sent: asyncio.Queue[Message | None] = asyncio.Queue()
    first = True

    async def receive() -> Message:
        nonlocal first
        if first:
            first = False
            return {"type": "http.request", "body": body, "more_body": False}
        return await asyncio.Future()  # for ever: whoever runs this cancels the task

    async def send(message: Message) -> None:
        await sent.put(dict(message))

    async def run() -> None:
        try:
            await app(scope, receive, send)
        finally:
            await sent.put(None)

    task = asyncio.ensure_future(run())
    try:
        while (message := await sent.get()) is not None:
            yield message
        await task
    finally:
        task.cancel()


async def as_response(found: Stream) -> Response:
    """A response of Starlette from ASGI messages."""
    start = await anext(found)
    response = StreamingResponse(_bodies(found), start["status"])
    response.raw_headers = [(bytes(name), bytes(value)) for name, value in start["headers"]]
    return response


async def _bodies(found: Stream) -> AsyncIterator[bytes]:
    async for message in found:
        if body := message.get("body"):
            yield body


def build(settings: RaySettings) -> Any:
    """The application for `serve run lime_edge.server.ray:build`, and for config files.

    Replicas are added when more requests wait than they can answer together.
    """
    scaling = {"min_replicas": settings.least, "max_replicas": settings.most, "target_ongoing_requests": settings.rows}
    replicas = serve.deployment(
        Replica,
        autoscaling_config=scaling,
        max_ongoing_requests=4 * settings.rows,
        ray_actor_options={"num_cpus": settings.cpus},
    )
    front = serve.deployment(Front, max_ongoing_requests=1000, ray_actor_options={"num_cpus": 0})
    return front.bind(settings, replicas.bind(settings))
