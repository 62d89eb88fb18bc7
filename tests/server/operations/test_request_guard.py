"""What every request passes: host, key, size and time of the body."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from lime_edge.server.operations.api_keys import ApiKeys
from lime_edge.server.operations.server_settings import Limits
from tests.server.served import ask, chat, connected, running

KEY = "a-key-of-sixteen"
HEAD = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\n%s\r\n\r\n"
LIMITS = Limits(body_bytes=5000, read_seconds=0.6)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with running(limits=LIMITS) as found:
        yield found


@pytest.fixture(scope="module")
def locked() -> Iterator[str]:
    with running(keys=ApiKeys({KEY: "alice"}), page=True) as found:
        yield found


def test_keys(locked: str) -> None:
    assert ask(locked, "/v1/models", headers={"Authorization": f"Bearer {KEY}"}).status == 200
    assert ask(locked, "/v1/models", headers={"Authorization": f"bearer  {KEY}"}).status == 200
    for wrong in ({}, {"Authorization": f"Bearer {KEY}x"}, {"Authorization": KEY}, {"Authorization": f"Basic {KEY}"}):
        for path in ("/v1/models", "/metrics", "/openapi.json", "/v1/nothing", "//health"):
            refused = ask(locked, path, headers=wrong)
            assert (refused.status, refused.json["error"]["code"]) == (401, "invalid_api_key")
            assert refused.headers["www-authenticate"] == "Bearer"
    assert chat(locked).status == 401
    assert ask(locked, "/health").status == 200
    assert ask(locked, "/").status == 200


def test_without_keys_any_bearer_is_accepted_but_no_other_host(url: str) -> None:
    assert ask(url, "/v1/models", headers={"Authorization": "Bearer anything"}).status == 200
    port = url.rpartition(":")[2]
    for host in (f"localhost:{port}", "127.0.0.1", "[::1]:80", "LOCALHOST"):
        assert ask(url, "/v1/models", headers={"Host": host}).status == 200
    for host in ("evil.example", f"localhost.evil.example:{port}", ""):  # names that someone let point here
        refused = ask(url, "/v1/models", headers={"Host": host})
        assert (refused.status, refused.json["error"]["code"]) == (421, "wrong_host")


def test_every_answer_has_the_id_of_its_request(url: str) -> None:
    ids = {ask(url, path).headers["x-request-id"] for path in ("/health", "/nothing", "/v1/models")}
    assert len(ids) == 3
    answer = chat(url, max_tokens=1)
    assert answer.json["id"] == f"chatcmpl-{answer.headers['x-request-id']}"


def test_large_bodies(url: str) -> None:
    refused = ask(url, "/v1/chat/completions", b" " * 5001)
    assert (refused.status, refused.json["error"]["code"]) == (413, "body_too_large")
    with connected(url) as connection:  # without stating its length
        connection.sendall(HEAD % b"Transfer-Encoding: chunked")
        connection.sendall(b"".join(b"400\r\n" + b"x" * 0x400 + b"\r\n" for _ in range(6)))
        assert connection.recv(12) == b"HTTP/1.1 413"
    with connected(url) as connection:  # a length that no machine has
        connection.sendall(
            b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9999999999999999999\r\n\r\n"
        )
        assert connection.recv(12) == b"HTTP/1.1 413"


def test_slow_bodies(url: str) -> None:
    with connected(url) as connection:
        connection.sendall(HEAD % b"Content-Length: 100" + b"{")
        started = time.monotonic()
        data = b""
        while part := connection.recv(4096):
            data += part
        assert data.startswith(b"HTTP/1.1 408")
        assert b"connection: close" in data.lower()
        assert 0.5 < time.monotonic() - started < 10


def test_a_client_that_leaves_in_its_body_hurts_nobody(url: str) -> None:
    with connected(url) as connection:
        connection.sendall(HEAD % b"Content-Length: 100" + b"{")
    assert ask(url, "/health").status == 200
