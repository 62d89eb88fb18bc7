"""Structured logs: one JSON object a line, without any text of prompts or answers unless the operator asks for it."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any, TextIO

LOGGER = logging.getLogger("lime_edge.server")
_FACTS = "lime_facts"  # attribute of a record


class JsonLines(logging.Formatter):
    """Writes a record as one line of JSON; control characters cannot begin a new line."""

    def format(self, record: logging.LogRecord) -> str:
        document: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **getattr(record, _FACTS, {}),
        }
        if record.exc_info:
            document["traceback"] = self.formatException(record.exc_info)
        return json.dumps(document, default=str)


def event(name: str, level: int = logging.INFO, error: BaseException | None = None, **facts: Any) -> None:
    """Log an event with facts; those that are None are left out."""
    if LOGGER.isEnabledFor(level):
        known = {key: value for key, value in facts.items() if value is not None}
        LOGGER.log(level, name, exc_info=error, extra={_FACTS: known})


def to_stream(stream: TextIO | None = None, level: int = logging.INFO) -> None:
    """Write the logs of this server and of uvicorn to a stream, by default standard error."""
    handler = logging.StreamHandler(sys.stderr if stream is None else stream)
    handler.setFormatter(JsonLines())
    for name in (LOGGER.name, "uvicorn.error"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(level if name == LOGGER.name else max(level, logging.WARNING))
