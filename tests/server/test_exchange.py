"""What is done around answers: clients that leave, requests that wait, logs, and priorities."""

from __future__ import annotations

import http.client
import io
import json
import logging
import threading
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest

from lime_edge.runtime import Runtime, SchedulerSettings
from lime_edge.server.operations.request_log import LOGGER, JsonLines
from lime_edge.server.operations.server_settings import Limits
from tests.server.served import HELLO, ask, chat, connected, running, settled, shared
from tests.support.runtime_models import exported, skill

LONG: dict[str, Any] = {"model": "legal", "messages": HELLO, "max_tokens": 220, "temperature": 2.0}


@pytest.fixture
def lines() -> Iterator[list[dict[str, Any]]]:
    """The log, as it grows."""
    stream, found = io.StringIO(), list[dict[str, Any]]()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines())
    handler.emit = lambda record: found.append(json.loads(handler.format(record)))  # type: ignore[method-assign]
    level = LOGGER.level
    LOGGER.addHandler(handler)
    LOGGER.setLevel(logging.INFO)
    yield found
    LOGGER.removeHandler(handler)
    LOGGER.setLevel(level)


def narrow(rows: int, waiting: int, patience: float | None = None) -> Runtime:
    """A runtime that answers few requests at the same time."""
    settings = SchedulerSettings(rows=rows, waiting=waiting, patience=patience)
    made = Runtime.load(exported(), threads=1, scheduler=settings)
    made.load_skill(skill(exported(), "legal"))
    return made


def until(condition: Any) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_goes_away_frees_its_rows(stream: bool) -> None:
    with running() as url:
        data = json.dumps({**LONG, "stream": stream, "n": 4}).encode()
        fields = f"Host: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(data)}"
        head = f"POST /v1/chat/completions HTTP/1.1\r\n{fields}\r\n\r\n"
        for _ in range(3):
            with connected(url) as connection:
                connection.sendall(head.encode() + data)
                until(lambda: shared().scheduler.stats().running)
            settled(shared())
        assert shared().scheduler.stats().finished["cancelled"] >= 1
        assert chat(url).status == 200


def test_a_full_queue_is_429_with_retry_after() -> None:
    made = narrow(1, 1)
    with running(made) as url:
        first = [threading.Thread(target=ask, args=(url, "/v1/chat/completions", LONG)) for _ in range(2)]
        for thread in first:
            thread.start()
        until(lambda: made.scheduler.stats().waiting == 1)
        for streamed in (False, True):
            refused = chat(url, stream=streamed)
            assert refused.status == 429
            assert int(refused.headers["retry-after"]) >= 1
            assert refused.json["error"]["type"] == "rate_limit_error"
        for thread in first:
            thread.join()
        assert chat(url).status == 200


def test_a_request_that_waited_too_long_is_429() -> None:
    made = narrow(1, 8, patience=0.05)
    with running(made) as url:
        first = threading.Thread(target=ask, args=(url, "/v1/chat/completions", {**LONG, "max_tokens": 230}))
        first.start()
        until(lambda: made.scheduler.stats().running == 1)
        refused = chat(url, stream=True)
        first.join()
        assert refused.status in (429, 200)  # 200: the first was done within 50 ms
        assert made.scheduler.stats().finished.get("overloaded", 0) == (refused.status == 429)


def test_an_answer_that_takes_too_long_ends_with_what_it_has() -> None:
    with running(limits=Limits(request_seconds=1e-6)) as url:
        found = chat(url).json["choices"][0]
    assert found["finish_reason"] == "timeout"


def test_logs_tell_what_happened_and_no_text(lines: list[dict[str, Any]]) -> None:
    with running() as url:
        answer = chat(url, messages=[{"role": "user", "content": "a secret"}], user="bob", extra="s3cret")
        chat(url, "nope-secret")
    answered = [line for line in lines if line["event"] == "answered"]
    assert len(answered) == 1
    line = answered[0]
    assert line["request"] == answer.json["id"]
    assert line["receipt"] == answer.json["lime"][0]["receipt_id"]
    assert (line["model"], line["client"], line["ignored"]) == ("legal", "127.0.0.1", ["extra"])
    assert line["completion_tokens"] == answer.json["usage"]["completion_tokens"]
    assert 0 < line["first_token_seconds"] <= line["seconds"]
    assert "secret" not in json.dumps(lines)
    assert answer.json["choices"][0]["message"]["content"] not in json.dumps(lines)


def test_logs_have_texts_if_asked(lines: list[dict[str, Any]]) -> None:
    with running(log_prompts=True) as url:
        answer = chat(url)
    line = next(line for line in lines if line["event"] == "answered")
    assert line["body"]["messages"] == HELLO
    assert line["texts"] == [answer.json["choices"][0]["message"]["content"]]


def test_an_error_in_a_stream_is_an_event(monkeypatch: pytest.MonkeyPatch, lines: list[dict[str, Any]]) -> None:
    from lime_edge.server import chat_completions

    def broken(self: Any, piece: Any) -> Any:
        raise RuntimeError("broken: /secret/path")

    monkeypatch.setattr(chat_completions._Chat, "chunks", broken)
    with running() as url:
        answer = chat(url, stream=True)
        settled(shared())
    assert answer.status == 200
    events = [json.loads(line[6:]) for line in answer.data.decode().splitlines() if line.startswith("data: ")]
    assert events[-1]["error"]["type"] == "server_error"
    assert "secret" not in answer.data.decode()
    assert any("broken" in line.get("traceback", "") for line in lines)


def test_a_slow_reader_gets_everything() -> None:
    with running() as url:
        connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)
        body = {
            "model": "legal",
            "messages": HELLO,
            "max_tokens": 60,
            "stream": True,
            "logprobs": True,
            "top_logprobs": 20,
        }
        connection.request("POST", "/v1/chat/completions", json.dumps(body), {"content-type": "application/json"})
        response = connection.getresponse()
        data = b""
        while part := response.read(4096):
            data += part
            time.sleep(0.005)
        assert data.rstrip().endswith(b"data: [DONE]")
        connection.close()
