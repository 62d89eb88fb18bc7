"""A server in a thread of the test process, and a plain client."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from lime_edge.runtime import Runtime
from lime_edge.server.app import create_app
from lime_edge.server.operations.api_keys import ApiKeys
from lime_edge.server.operations.server_settings import ServerSettings
from lime_edge.server.operations.skill_watcher import SkillWatcher
from lime_edge.server.uvicorn_server import UvicornServer
from tests.support.runtime_models import exported, runtime

NAME = "tiny"
SKILLS = ("legal", "brief")
HELLO = [{"role": "user", "content": "Hello"}]


class Answer(NamedTuple):
    """An HTTP response."""

    status: int
    headers: Mapping[str, str]
    data: bytes

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.data)

    @property
    def events(self) -> list[Any]:
        """The server-sent events of the body; the last one must be [DONE]."""
        lines = [line[6:] for line in self.data.decode().splitlines() if line.startswith("data: ")]
        assert lines[-1] == "[DONE]"
        return [json.loads(line) for line in lines[:-1]]


@cache
def shared() -> Runtime:
    """A runtime with two skills, for tests that do not change it."""
    return runtime(exported(), *SKILLS)


@contextmanager
def running(
    made: Runtime | None = None, keys: ApiKeys | None = None, watcher: SkillWatcher | None = None, **settings: Any
) -> Iterator[str]:
    """Serve a runtime; yields the URL."""
    configured = ServerSettings(**{"port": 0, **settings})
    server = UvicornServer(create_app(made or shared(), configured, NAME, watcher, keys), configured)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.005)
    try:
        yield f"http://127.0.0.1:{server.port}"
    finally:
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive()


def ask(
    url: str,
    path: str,
    body: Any = None,
    headers: Mapping[str, str] | None = None,
    method: str | None = None,
    timeout: float = 60,
) -> Answer:
    """Send one request; a body that is not bytes is sent as JSON."""
    data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=timeout)
    try:
        sent = {"content-type": "application/json", **(headers or {})}
        connection.request(method or ("GET" if body is None else "POST"), path, data, sent)
        response = connection.getresponse()
        return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
    finally:
        connection.close()


def chat(url: str, model: str = "legal", **fields: Any) -> Answer:
    """Ask for a chat completion."""
    return ask(url, "/v1/chat/completions", {"model": model, "messages": HELLO, "max_tokens": 6, **fields})


def connected(url: str) -> socket.socket:
    """A connection that has sent nothing."""
    place = urlsplit(url)
    assert place.hostname is not None
    return socket.create_connection((place.hostname, place.port or 80), timeout=30)


def settled(made: Runtime) -> None:
    """Wait until no request runs or waits."""
    end = time.monotonic() + 30
    while (stats := made.scheduler.stats()).running or stats.waiting:
        assert time.monotonic() < end
        time.sleep(0.01)
