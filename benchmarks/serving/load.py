"""Clients of a server: streams read with as little work as possible, and a server process to ask."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any
from urllib.parse import urlsplit


@dataclass(frozen=True)
class Streamed:
    """One answer as its client saw it.

    Attributes:
        began: When the request was sent; a time of `time.perf_counter`.
        arrivals: When each event with text arrived.
        tokens: How many the server says there were.
        text: The answer.
    """

    began: float
    arrivals: tuple[float, ...]
    tokens: int
    text: str

    @property
    def first(self) -> float:
        """Seconds to the first text."""
        return self.arrivals[0] - self.began

    @property
    def gaps(self) -> list[float]:
        """Seconds between two events with text."""
        return [after - before for before, after in zip(self.arrivals, self.arrivals[1:], strict=False)]


class Client:
    """One connection, used by one thread."""

    def __init__(self, url: str) -> None:
        self._connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=300)

    def stream(self, path: str, body: Mapping[str, Any]) -> Streamed:
        """Ask for a stream, and read it."""
        data = json.dumps({**body, "stream": True, "stream_options": {"include_usage": True}})
        began = time.perf_counter()
        self._connection.request("POST", path, data, {"content-type": "application/json"})
        response = self._connection.getresponse()
        lines: list[tuple[float, bytes]] = []
        while line := response.readline():
            lines.append((time.perf_counter(), line))
        return _read(began, lines)

    def close(self) -> None:
        """End the connection."""
        self._connection.close()


def _read(began: float, lines: Sequence[tuple[float, bytes]]) -> Streamed:
    """Parse what arrived, after all of it has."""
    arrivals, pieces, tokens = [], [], 0
    for moment, line in lines:
        if not line.startswith(b"data: {"):
            continue
        event = json.loads(line[6:])
        for choice in event["choices"]:
            if piece := choice.get("text") or choice.get("delta", {}).get("content"):
                arrivals.append(moment)
                pieces.append(piece)
        if event.get("usage"):
            tokens = event["usage"]["completion_tokens"]
    if not arrivals:
        arrivals = [lines[-1][0]]
    return Streamed(began, tuple(arrivals), tokens, "".join(pieces))


def answered(url: str, requests: Sequence[tuple[str, Mapping[str, Any]]], clients: int) -> tuple[list[Streamed], float]:
    """Let clients answer a list of requests, each client one after the other.

    Returns:
        The answers in the order of the requests, and the seconds that all of them took.
    """
    queue: SimpleQueue[int] = SimpleQueue()
    for number in range(len(requests)):
        queue.put(number)
    found: dict[int, Streamed] = {}

    def work() -> None:
        client = Client(url)
        while True:
            try:
                number = queue.get_nowait()
            except Empty:
                break
            found[number] = client.stream(*requests[number])
        client.close()

    threads = [threading.Thread(target=work) for _ in range(clients)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [found[number] for number in range(len(requests))], time.perf_counter() - began


@contextmanager
def served(model: Path, *options: str) -> Iterator[str]:
    """Run `lime-edge serve` in its own process; yields the URL."""
    command = [sys.executable, "-m", "lime_edge", "serve", str(model), "--port", "0", *options]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=dict(os.environ))
    assert process.stderr is not None
    try:
        url = next(event["url"] for event in map(json.loads, process.stderr) if event["event"] == "listening")
        drain = threading.Thread(target=process.stderr.read, daemon=True)  # a full pipe would stop the server
        drain.start()
        yield url
    finally:
        process.terminate()
        process.wait()
