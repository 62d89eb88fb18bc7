"""Connections that say nothing, or too slowly."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import pytest

from lime_edge.server.operations.connection import HEADER_BYTES
from lime_edge.server.operations.server_settings import Limits
from tests.server.served import ask, chat, connected, running

SECONDS = 0.5


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with running(limits=Limits(read_seconds=SECONDS)) as found:
        yield found


def ends(connection: socket.socket) -> float:
    """Seconds until the server closes the connection."""
    started = time.monotonic()
    while True:
        try:
            if not connection.recv(4096):
                break
        except ConnectionError:
            break
    return time.monotonic() - started


def trickle(connection: socket.socket) -> None:
    for byte in b"GET /health HTTP/1.1\r\nHost: localhost\r\n" * 50:
        connection.sendall(bytes([byte]))
        time.sleep(0.02)


def test_silence_ends(url: str) -> None:
    with connected(url) as connection:
        assert SECONDS * 0.8 < ends(connection) < 10


def test_a_header_byte_by_byte_ends_at_the_same_time(url: str) -> None:
    with connected(url) as connection:
        started = time.monotonic()
        with pytest.raises(ConnectionError):
            trickle(connection)
        assert time.monotonic() - started < 10


def test_a_second_request_may_not_be_slow_either(url: str) -> None:
    with connected(url) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert connection.recv(4096).startswith(b"HTTP/1.1 200")
        connection.sendall(b"GET /health HTTP/1.1\r\nHost:")
        assert ends(connection) < 10


def test_long_headers_are_refused(url: str) -> None:
    with connected(url) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * (HEADER_BYTES + 10))
        assert connection.recv(12) == b"HTTP/1.1 400"


def test_an_answer_may_take_longer(url: str) -> None:
    """The deadline is for the header alone; keep-alive connections are used again."""
    assert chat(url, max_tokens=200, temperature=0.1).status == 200


def test_many_silent_connections_do_not_keep_others_out(url: str) -> None:
    silent = [connected(url) for _ in range(150)]
    try:
        assert ask(url, "/health").status == 200
        assert chat(url).status == 200
        assert all(ends(one) < 10 for one in silent)
    finally:
        for one in silent:
            one.close()
