"""One JSON object a line."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from lime_edge.server.operations.request_log import LOGGER, event, to_stream


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    loggers = [logging.getLogger(name) for name in (LOGGER.name, "uvicorn.error")]
    before = [(one.handlers, one.propagate, one.level) for one in loggers]
    made = io.StringIO()
    to_stream(made)
    yield made
    for one, (handlers, propagate, level) in zip(loggers, before, strict=True):
        one.handlers, one.propagate = handlers, propagate
        one.setLevel(level)


def test_facts_are_fields_and_nothing_begins_a_line(stream: io.StringIO) -> None:
    event("answered", model="a\nb\u2028\x1b[31m", path=Path("x"), absent=None, tokens=3)
    try:
        raise ValueError("a\nb")
    except ValueError as error:
        event("failed", error=error)
    lines = stream.getvalue().splitlines()
    assert len(lines) == 2
    first, second = map(json.loads, lines)
    assert first | {"time": ""} == {
        "time": "",
        "level": "info",
        "event": "answered",
        "model": "a\nb\u2028\x1b[31m",
        "path": "x",
        "tokens": 3,
    }
    assert first["time"].endswith("+00:00")
    assert "ValueError: a\nb" in second["traceback"]


def test_uvicorn_writes_the_same_form_and_only_what_matters(stream: io.StringIO) -> None:
    logging.getLogger("uvicorn.error").info("Started server process [%d]", 1)
    logging.getLogger("uvicorn.error").warning("Invalid HTTP request received.")
    assert [json.loads(line)["event"] for line in stream.getvalue().splitlines()] == ["Invalid HTTP request received."]
