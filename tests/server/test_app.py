"""The application as a whole: its schema, errors in one form, other origins, and anything as a body."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lime_edge.server.app import create_app
from lime_edge.server.operations.server_settings import Limits, ServerSettings
from tests.server.bodies import BODIES, PATHS, RAW
from tests.server.served import ask, chat, running, settled, shared
from tests.support.paths import ROOT

SCHEMA = ROOT / "docs" / "openapi.json"
COUNT = 300  # bodies; tests/server/slow sends 20,000


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with running(limits=Limits(body_bytes=2**16)) as found:
        yield found


def test_the_schema_is_checked_in() -> None:
    made = create_app(shared(), ServerSettings(), "tiny").openapi()
    assert json.loads(SCHEMA.read_text("utf-8")) == made, "python -m tests.server.openapi"
    assert set(made["paths"]) == {
        "/health",
        "/metrics",
        "/tokenize",
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/load_lora_adapter",
        "/v1/models",
        "/v1/models/{model}",
        "/v1/unload_lora_adapter",
    }


def test_the_server_shows_its_schema_and_no_page_that_loads_scripts(url: str) -> None:
    assert ask(url, "/openapi.json").json["info"]["title"] == "lime-edge"
    for path in ("/docs", "/redoc", "/"):
        assert ask(url, path).status == 404


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/v1/nothing", 404), ("GET", "/v1/completions", 405), ("PUT", "/health", 405)],
)
def test_errors_have_one_form(url: str, method: str, path: str, status: int) -> None:
    found = ask(url, path, method=method)
    assert found.status == status
    assert set(found.json["error"]) == {"message", "type", "param", "code"}


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b'{"model": "legal", "model": "brief"}', "appears twice"),
        (b'{"model": NaN}', "NaN is not a JSON number"),
        (b'{"model": "\xff"}', "not UTF-8"),
        (b"\xef\xbb\xbf{}", "not JSON"),
        (b"[" * 5000, "JSON that can be used"),
        (b"[" * 60000 + b"]" * 200, "JSON that can be used"),
        (b"{" + b'"a":' * 300 + b"1" + b"}" * 300, "JSON that can be used"),
        (b'{"model": "\\ud800", "messages": [{"role": "user", "content": "x"}]}', "model"),
        (b'{"model": "legal", "messages": [{"role": "user", "content": "\\ud800"}]}', "surrogate"),
        (b'{"model": "legal", "messages": [{"role": "user", "content": "x"}], "seed": ' + b"9" * 5000 + b"}", ""),
        (b"[]", "the request is invalid"),
        (b'"x"', "the request is invalid"),
        (b"null", "the request is invalid"),
    ],
)
def test_bodies_that_are_no_requests(url: str, data: bytes, words: str) -> None:
    found = ask(url, "/v1/chat/completions", data)
    assert (found.status, found.json["error"]["type"]) == (400, "invalid_request_error")
    assert words in found.json["error"]["message"]


def test_only_json_is_read(url: str) -> None:
    """A form of another site can send text without asking first."""
    body = json.dumps({"model": "legal", "messages": [{"role": "user", "content": "x"}]}).encode()
    for kind in ("text/plain", "application/x-www-form-urlencoded", ""):
        found = ask(url, "/v1/chat/completions", body, {"content-type": kind})
        assert found.status == 415
        assert "expected application/json" in found.json["error"]["message"]


def test_other_origins_are_off_by_default() -> None:
    origin = {"Origin": "https://app.example", "Access-Control-Request-Method": "POST"}
    with running() as url:
        assert "access-control-allow-origin" not in ask(url, "/v1/models", headers=origin).headers
        assert ask(url, "/v1/models", headers=origin, method="OPTIONS").status == 405
    with running(cors_origins=("https://app.example",)) as url:
        allowed = ask(url, "/v1/chat/completions", headers=origin, method="OPTIONS")
        assert (allowed.status, allowed.headers["access-control-allow-origin"]) == (200, "https://app.example")
        other = ask(url, "/v1/models", headers={**origin, "Origin": "https://evil.example"})
        assert "access-control-allow-origin" not in other.headers


def test_tokenize(url: str) -> None:
    for fields, tokens in (
        ({"prompt": "Hé"}, shared().tokenize("Hé", "legal", raw=True)),
        ({"messages": [{"role": "user", "content": "Hé"}]}, shared().tokenize("Hé", "legal")),
    ):
        found = ask(url, "/tokenize", {"model": "legal", **fields}).json
        assert found == {"count": len(tokens), "max_model_len": 256, "tokens": list(tokens)}
    for bad in ({}, {"prompt": "x", "messages": [{"role": "user", "content": "x"}]}):
        assert ask(url, "/tokenize", {"model": "legal", **bad}).status == 400
    assert ask(url, "/tokenize", {"model": "nope", "prompt": "x"}).status == 404


def check(url: str, path: str, body: Any) -> None:
    """Send a body; whatever it is, the answer is one that the schema declares, and the service goes on."""
    found = ask(url, path, body)
    assert found.status in (200, 400, 403, 404, 413), (found.status, found.data[:500])
    if found.status != 200:
        assert set(found.json["error"]) == {"message", "type", "param", "code"}
        assert len(found.data) < 40_000


@settings(max_examples=COUNT)
@given(st.sampled_from(PATHS), BODIES | RAW)
def test_any_body(url: str, path: str, body: Any) -> None:
    check(url, path, body)


def test_after_all_this_it_still_answers(url: str) -> None:
    settled(shared())
    assert chat(url).status == 200
    assert shared().scheduler.stats().kv_used == 0
