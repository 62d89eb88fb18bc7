"""What every request passes before it is read: host, API key, size and time of the body.

The body is read here as a whole, so that what follows handles complete bodies of bounded size only.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lime_edge.common.strict_json import show
from lime_edge.server.formats.api_errors import ApiError

from .api_keys import ApiKeys
from .server_settings import ServerSettings, is_loopback

OPEN = ("/health", "/")  # anyone may ask for these
ID_HEADER = "x-request-id"
_CLOSE = {"Connection": "close"}  # what the client still sends is not read


class RequestGuard:
    """ASGI middleware. It sets `request_id` and `client` in the state of a request.

    Args:
        app: What follows.
        settings: Of the server.
        keys: Who may use it; None: anyone.
        refused: Called with the status of every refusal.
    """

    def __init__(
        self, app: ASGIApp, settings: ServerSettings, keys: ApiKeys | None, refused: Callable[[int], None]
    ) -> None:
        self._app, self._settings, self._keys, self._refused = app, settings, keys, refused

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":  # lifespan; there are no websockets
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return
        number = secrets.token_hex(12)
        send = _with_id(send, number)
        try:
            headers = Headers(scope=scope)
            self._check_host(headers)
            client = self._client(scope, headers)
            body = await self._body(headers, receive)
        except ApiError as error:
            self._refused(error.status)
            await error.response()(scope, receive, send)
            return
        if body is not None:
            scope["state"] = {**scope.get("state", {}), "request_id": number, "client": client}
            await self._app(scope, _replayed(body, receive), send)

    def _check_host(self, headers: Headers) -> None:
        """Without keys, only names of this machine: a page of another site could have its name point here."""
        if self._keys is not None or not self._settings.local:
            return
        host = headers.get("host", "")
        name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
        if not is_loopback(name.strip("[]").lower()):
            raise ApiError(
                421, f"the host is {show(host)}; expected localhost or a loopback address", code="wrong_host"
            )

    def _client(self, scope: Scope, headers: Headers) -> str:
        """Who asks: the name of the key, or the address."""
        address = scope["client"][0] if scope.get("client") else "unknown"
        if self._keys is None or scope["path"] in OPEN:
            return address
        scheme, _, token = headers.get("authorization", "").partition(" ")
        client = self._keys.client(token.strip()) if scheme.lower() == "bearer" else None
        if client is None:
            raise ApiError(
                401,
                "the API key is missing or wrong; expected the header Authorization: Bearer KEY",
                code="invalid_api_key",
                headers={"WWW-Authenticate": "Bearer"},
            )
        return client

    async def _body(self, headers: Headers, receive: Receive) -> bytes | None:
        """The whole body; None if the client left."""
        limit, seconds = self._settings.limits.body_bytes, self._settings.limits.read_seconds
        too_large = ApiError(
            413, f"the body has more than {limit:,} bytes; send less", code="body_too_large", headers=_CLOSE
        )
        length = headers.get("content-length", "")
        if length.isdigit() and int(length[:20]) > limit:
            raise too_large
        body = bytearray()
        try:
            async with asyncio.timeout(seconds):
                while True:
                    message = await receive()
                    if message["type"] != "http.request":
                        return None
                    body += message.get("body", b"")
                    if len(body) > limit:
                        raise too_large
                    if not message.get("more_body"):
                        return bytes(body)
        except TimeoutError:
            text = f"the body did not arrive within {seconds:g} s"
            raise ApiError(408, text, code="too_slow", headers=_CLOSE) from None


def _with_id(send: Send, number: str) -> Send:
    async def sent(message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message)[ID_HEADER] = number
        await send(message)

    return sent


def _replayed(body: bytes, receive: Receive) -> Receive:
    """A `receive` that gives the body at once; after that, what the client does next."""
    first = True

    async def received() -> Message:
        nonlocal first
        if first:
            first = False
            return {"type": "http.request", "body": body, "more_body": False}
        return await receive()

    return received
