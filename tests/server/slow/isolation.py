"""16 clients, eight skills, cancellations and hot updates: every answer is that of the same request alone.

$MINUTES says how long; by default ten.
"""

from __future__ import annotations

import http.client
import json
import os
import random
import shutil
import threading
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from lime_edge.runtime import Runtime
from tests.server.operations.test_server_metrics import values
from tests.server.served import ask
from tests.server.slow.process import Process
from tests.support.runtime_models import PROMPTS, exported, skill

MINUTES = float(os.environ.get("MINUTES", "10"))
CLIENTS, SEED = 16, 0
NAMES = [f"skill-{number}" for number in range(8)]
SETTINGS: list[dict[str, Any]] = [
    {"max_tokens": 30},
    {"max_tokens": 60, "temperature": 1.5, "seed": 4},
    {"max_tokens": 20, "repetition_penalty": 1.3, "frequency_penalty": 0.5},
    {"max_tokens": 25, "temperature": 0.8, "top_k": 9, "seed": 8, "stop": ["e"]},
]


class Expected:
    """Answers of one request alone, by the digest of its skill."""

    def __init__(self) -> None:
        self._runtime = Runtime.load(exported(), threads=1)
        self._known: dict[tuple[str, str, int], str] = {}
        self._names: dict[str, str | None] = {"": None}
        self._lock = threading.Lock()

    def add(self, path: Path) -> None:
        """Know one version of a skill."""
        name = f"{path.stem}-{len(self._names)}"
        self._names[self._runtime.load_skill(path, name).digest] = name

    def text(self, digest: str, prompt: str, number: int) -> str:
        """The answer to a prompt with the nth settings."""
        with self._lock:
            key = (digest, prompt, number)
            if key not in self._known:
                chosen = dict(SETTINGS[number])
                most = chosen.pop("max_tokens")
                answer = self._runtime.generate(prompt, self._names[digest], max_new_tokens=most, **chosen)
                self._known[key] = answer.text
            return self._known[key]


class Client(threading.Thread):
    """Asks until the time is over, and compares every whole answer."""

    def __init__(self, number: int, url: str, expected: Expected, end: float) -> None:
        super().__init__()
        self._random, self._url = random.Random(SEED + number), urlsplit(url).netloc
        self._expected, self._end = expected, end
        self.counts: Counter[str] = Counter()
        self.faults: list[str] = []

    def run(self) -> None:
        while time.monotonic() < self._end:
            name, prompt = self._random.choice([*NAMES, "base"]), self._random.choice(PROMPTS)
            number, streams = self._random.randrange(len(SETTINGS)), self._random.random() < 0.7
            leaves = self._random.random() < 0.2
            with suppress(ConnectionError, TimeoutError):
                self._ask(name, prompt, number, streams, leaves)

    def _ask(self, name: str, prompt: str, number: int, streams: bool, leaves: bool) -> None:
        connection = http.client.HTTPConnection(self._url, timeout=120)
        try:
            body = {"model": name, "messages": [{"role": "user", "content": prompt}], "stream": streams}
            data = json.dumps({**body, **SETTINGS[number]})
            connection.request("POST", "/v1/chat/completions", data, {"content-type": "application/json"})
            if leaves and not streams:
                self.counts["left"] += 1
                return
            response = connection.getresponse()
            if leaves:
                response.read(self._random.randrange(1, 3000))
                self.counts["left"] += 1
                return
            self._compare(prompt, number, response.status, response.read(), streams)
        finally:
            connection.close()

    def _compare(self, prompt: str, number: int, status: int, data: bytes, streams: bool) -> None:
        if status == 429:
            self.counts["429"] += 1
            return
        if status != 200:
            self.faults.append(f"{status}: {data[:300]!r}")
            return
        text, told = _streamed(data) if streams else _whole(json.loads(data))
        skills = told["receipt"]["skills"]
        expected = self._expected.text(skills[0]["digest"] if skills else "", prompt, number)
        self.counts["answered"] += 1
        if text != expected:
            self.faults.append(f"{skills} {prompt!r} {SETTINGS[number]}: {text!r}; alone: {expected!r}")


def _whole(document: Any) -> tuple[str, Any]:
    return document["choices"][0]["message"]["content"], document["lime"][0]


def _streamed(data: bytes) -> tuple[str, Any]:
    lines = [line[6:] for line in data.decode().splitlines() if line.startswith("data: ")]
    assert lines[-1] == "[DONE]", lines[-1]
    events = [json.loads(line) for line in lines[:-1]]
    return "".join(one["choices"][0]["delta"].get("content", "") for one in events), events[-1]["lime"][0]


def test_every_answer_is_that_of_the_request_alone(tmp_path: Path) -> None:
    expected = Expected()
    files = {(name, v): skill(exported(), name, seed=v, version=f"1.0.{v}") for name in NAMES for v in (0, 1)}
    for path in files.values():
        expected.add(path)
    for name in NAMES:
        shutil.copy(files[name, 0], tmp_path / f"{name}.lime")
    server = Process(exported(), "--name", "base", "--port", "0", "--rows", "16", "--skills", tmp_path)
    began, draw = time.monotonic(), random.Random(SEED)
    clients = [Client(number, server.url, expected, began + 60 * MINUTES) for number in range(CLIENTS)]
    for client in clients:
        client.start()
    updates, memory = 0, []
    while any(client.is_alive() for client in clients):
        name = draw.choice(NAMES)
        fresh = tmp_path / f".{name}.new"
        shutil.copy(files[name, draw.randrange(2)], fresh)
        fresh.replace(tmp_path / f"{name}.lime")
        updates += 1
        time.sleep(0.5)
        memory.append(server.private_bytes())
    counts = sum((client.counts for client in clients), Counter[str]())
    faults = [fault for client in clients for fault in client.faults]
    time.sleep(1)
    gauges = values(ask(server.url, "/metrics").data.decode())
    series = [f"{1e-6 * max(memory[at : at + 10]):.1f}" for at in range(0, len(memory), max(10, len(memory) // 20))]
    print(f"\n{dict(counts)}, {updates} updates, {len(faults)} faults; MB: {', '.join(series)}")
    assert server.end() in (0, -15)
    assert faults[:5] == []
    assert counts["answered"] > 100 * MINUTES
    assert gauges["vllm:num_requests_running"] == gauges["vllm:num_requests_waiting"] == 0
    assert gauges["vllm:kv_cache_usage_perc"] == 0
    assert gauges["lime:skill_load_failures"] == 0
    later = memory[len(memory) // 2 :]  # pools, caches and the allocator have grown to their size by then
    assert max(later[-10:]) == pytest.approx(sum(later[:10]) / len(later[:10]), rel=0.02)
