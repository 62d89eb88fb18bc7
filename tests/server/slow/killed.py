"""kill -9 under load, while skills are installed: clients retry, the store is whole, and the server starts again."""

from __future__ import annotations

import os
import random
import socket
import threading
import time
from http.client import HTTPException
from pathlib import Path

import pytest

from lime_edge.store.store import Store
from tests.server.served import chat
from tests.server.slow.process import Process
from tests.support.runtime_models import exported, skill

ROUNDS = 6


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


def test_kill_and_restart(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.install(skill(exported(), "legal"))
    port, draw = str(free_port()), random.Random(0)
    environment = {"LIME_EDGE_STORE": str(tmp_path)}
    options = ("--name", "base", "--port", port, "--store", "--references")
    stop, answered, wrong = threading.Event(), [0], list[str]()

    def client() -> None:
        while not stop.is_set():
            try:
                found = chat(f"http://127.0.0.1:{port}", "legal", timeout=10)
            except (OSError, HTTPException):  # the server is gone: try again
                time.sleep(0.05)
                continue
            if found.status == 200:
                answered[0] += 1
            else:
                wrong.append(f"{found.status} {found.data[:200]!r}")

    clients = [threading.Thread(target=client) for _ in range(4)]
    for one in clients:
        one.start()
    for number in range(ROUNDS):
        server = Process(exported(), *options, environment=environment)
        before, end = answered[0], time.monotonic() + 30
        while answered[0] < before + 3 and time.monotonic() < end:
            time.sleep(0.02)
        assert answered[0] >= before + 3
        store.install(skill(exported(), "legal", number + 1, version=f"2.0.{number}"))
        time.sleep(draw.random())
        assert server.end(force=True) == -9
        again = Store(tmp_path)
        assert again.list()[0].current == f"2.0.{number}"
        assert again.info("legal").path.is_file()
    stop.set()
    for one in clients:
        one.join()
    assert wrong == []
    assert [name for name in os.listdir(tmp_path) if name.startswith(".")] == []
    server = Process(exported(), *options, environment=environment)
    assert chat(server.url, "legal").json["lime"][0]["receipt"]["skills"][0]["version"] == f"2.0.{ROUNDS - 1}"
    assert server.end() in (0, -15)


def test_a_thousand_silent_connections(tmp_path: Path) -> None:
    server = Process(exported(), "--name", "base", "--port", "0")
    port = int(server.url.rpartition(":")[2])
    silent = [socket.create_connection(("127.0.0.1", port), timeout=60) for _ in range(1000)]
    try:
        began = time.monotonic()
        for _ in range(5):
            assert chat(server.url, "base").status == 200
        assert time.monotonic() - began < 20
        for one in silent:  # the server closes them
            assert one.recv(1) == b""
        assert time.monotonic() - began < 120
    finally:
        for one in silent:
            one.close()
    assert chat(server.url, "base").status == 200
    assert server.end() in (0, -15)


@pytest.mark.parametrize("body", [b"", b"{"])
def test_after_a_request_that_is_none(body: bytes) -> None:
    server = Process(exported(), "--name", "base", "--port", "0")
    with socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2])), timeout=30) as one:
        one.sendall(b"\x16\x03\x01" + body)
        assert one.recv(4096).startswith(b"HTTP/1.1 400")
    assert chat(server.url, "base").status == 200
    assert server.end() in (0, -15)
