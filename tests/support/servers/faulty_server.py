"""A local HTTP server whose routes answer correctly or with chosen faults."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread

from lime_edge.store.remote.https import Limits

#: Small limits, so that a test takes well under a second; the defaults are `https.USUAL`.
QUICK = Limits(size=2**20, silence=0.4, rate=200.0, window=0.4, tries=3)


@dataclass
class Server:
    """The routes of a server and the requests that it received.

    Attributes:
        routes: Path -> function that answers a request.
        rest: Answers requests for paths without a route.
        asked: Path and headers of every request.
        closing: Set when the server shuts down; slow routes poll it.
    """

    url: str
    routes: dict[str, Callable[[Request], None]] = field(default_factory=dict)
    rest: Callable[[Request], None] = field(default_factory=lambda: missing)
    asked: list[tuple[str, Mapping[str, str]]] = field(default_factory=list)
    closing: Event = field(default_factory=Event)

    def ranges(self, path: str) -> list[str | None]:
        """The Range header of each request for a path."""
        return [headers.get("Range") for asked, headers in self.asked if asked == path]


class Request(BaseHTTPRequestHandler):
    """One request; `book` is the `Server` that records it."""

    protocol_version = "HTTP/1.1"
    timeout = 10
    book: Server

    def do_GET(self) -> None:
        """Record the request and call its route."""
        self.book.asked.append((self.path, dict(self.headers)))
        self.close_connection = True
        with suppress(ConnectionError):
            self.book.routes.get(self.path, self.book.rest)(self)

    do_HEAD = do_POST = do_PUT = do_PATCH = do_GET  # noqa: N815

    def answer(self, status: int, body: bytes = b"", **headers: object) -> None:
        """Send status, headers (``Content_Length=3``; by default the true length; None omits a header) and body."""
        self.send_response(status)
        headers = {"Content_Length": len(body), "Connection": "close", **headers}
        for name, value in headers.items():
            if value is not None:
                self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def read_body(self) -> bytes:
        """The body of the request."""
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def wanted_from(self, etag: str) -> int:
        """The first byte of the requested range; 0 without a range or if its If-Range does not match."""
        match = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        return int(match[1]) if match and self.headers.get("If-Range", etag) == etag else 0

    def log_message(self, *_: object) -> None:
        """Suppress the log."""


@contextmanager
def serving() -> Iterator[Server]:
    """Run a server for the duration of the block."""
    book = Server("")
    with ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Request,), {"book": book})) as server:
        server.daemon_threads = True
        book.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield book
        finally:
            book.closing.set()
            server.shutdown()
            thread.join()


def missing(request: Request) -> None:
    """Answer 404."""
    request.answer(404, b"nothing here")


def file(data: bytes, etag: str = '"v1"') -> Callable[[Request], None]:
    """Serve a file correctly, with ranges, If-Range and an ETag."""
    return cut(data, [], etag)


def cut(data: bytes, ends: list[int], etag: str = '"v1"') -> Callable[[Request], None]:
    """Cut the connection at these offsets of the file, one for each request; then serve the whole file."""
    left = list(ends)

    def route(request: Request) -> None:
        begin = request.wanted_from(etag)
        end = left.pop(0) if left else len(data)
        if begin >= len(data):
            return request.answer(416, Content_Range=f"bytes */{len(data)}")
        if begin:
            where = f"bytes {begin}-{len(data) - 1}/{len(data)}"
            return request.answer(
                206, data[begin:end], Content_Length=len(data) - begin, Content_Range=where, ETag=etag
            )
        return request.answer(200, data[:end], Content_Length=len(data), ETag=etag, Accept_Ranges="bytes")

    return route


def fixed(status: int, body: bytes = b"", **headers: object) -> Callable[[Request], None]:
    """Always send the same answer."""
    return lambda request: request.answer(status, body, **headers)


def dripping(data: bytes, pause: float, head: bytes = b"HTTP/1.1 200 OK\r\n\r\n") -> Callable[[Request], None]:
    """Send `head` at once, then `data` at one byte every `pause` seconds."""

    def route(request: Request) -> None:
        request.wfile.write(head)
        for value in data:
            if request.book.closing.wait(pause):
                return
            request.wfile.write(bytes([value]))

    return route


def endless(piece: bytes) -> Callable[[Request], None]:
    """Send a chunked body without end."""

    def route(request: Request) -> None:
        request.answer(200, Content_Length=None, Transfer_Encoding="chunked")
        while not request.book.closing.is_set():
            request.wfile.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")

    return route


def in_turn(*routes: Callable[[Request], None]) -> Callable[[Request], None]:
    """Use one route for each request, in order; the last route answers all further requests."""
    left = list(routes)
    return lambda request: (left.pop(0) if len(left) > 1 else left[0])(request)
