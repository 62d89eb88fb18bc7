"""Runs the application with uvicorn: sockets, TLS, time limits, and a stop that lets streams end."""

from __future__ import annotations

import sys
from typing import Any

import uvicorn
from fastapi import FastAPI

from lime_edge.errors import ConfigError
from lime_edge.server.operations.connection import HEADER_BYTES, protocol_with_deadline
from lime_edge.server.operations.request_log import event
from lime_edge.server.operations.server_settings import ServerSettings

_KEEP_ALIVE = 15  # seconds that a connection without a request stays open
_FILES = 65536  # connections and files that are open at the same time, if the system allows it


class UvicornServer(uvicorn.Server):
    """uvicorn with the settings of a server; `port` is the one that it listens on."""

    def __init__(self, app: FastAPI, settings: ServerSettings) -> None:
        self._settings = settings
        config = uvicorn.Config(
            app,
            host=settings.host,
            port=settings.port,
            http=protocol_with_deadline(settings.limits.read_seconds),
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,  # who a client is, nobody but the connection says
            timeout_keep_alive=_KEEP_ALIVE,
            timeout_graceful_shutdown=int(settings.limits.drain_seconds) + 1,
            h11_max_incomplete_event_size=HEADER_BYTES,
            ssl_certfile=settings.certificate,
            ssl_keyfile=settings.private_key,
        )
        try:
            config.load()
        except OSError as error:
            raise ConfigError(f"the certificate or private key cannot be used: {error}") from error
        super().__init__(config)

    @property
    def port(self) -> int:
        """The port, once the server has started."""
        found: int = self.servers[0].sockets[0].getsockname()[1]
        return found

    async def startup(self, sockets: Any = None) -> None:
        """Listen, and log where."""
        await super().startup(sockets)
        if self.started:
            scheme = "https" if self.config.is_ssl else "http"
            event("listening", url=f"{scheme}://{_bracketed(self._settings.host)}:{self.port}")


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def serve(app: FastAPI, settings: ServerSettings) -> None:
    """Serve until SIGINT or SIGTERM; then accept nothing more, and let running answers end.

    Raises:
        ConfigError: The server cannot listen there.
    """
    raise_file_limit()
    server = UvicornServer(app, settings)
    try:
        server.run()
    except SystemExit as error:
        raise ConfigError(
            f"the server could not start on {settings.host}:{settings.port}; is the port in use, or the address not "
            "one of this machine?"
        ) from error


def raise_file_limit() -> None:
    """Let this process open as many connections as the system allows; usually it may open 1024 files."""
    if sys.platform == "win32":
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _FILES if hard == resource.RLIM_INFINITY else min(_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
