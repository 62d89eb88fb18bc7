"""Starting and stopping: where it listens, TLS, and streams that end in peace."""

from __future__ import annotations

import http.client
import json
import ssl
import subprocess
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from lime_edge.errors import ConfigError
from lime_edge.server.app import create_app
from lime_edge.server.operations.server_settings import ServerSettings
from lime_edge.server.uvicorn_server import UvicornServer, raise_file_limit, serve
from tests.server.served import HELLO, NAME, ask, chat, connected, running, shared


def test_a_port_in_use_is_one_error() -> None:
    with running() as url:
        settings = ServerSettings(port=urlsplit(url).port or 0)
        with pytest.raises(ConfigError, match="is the port in use"):
            serve(create_app(shared(), settings, NAME), settings)


def test_a_certificate_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "cert.pem").write_text("x", "utf-8")
    settings = ServerSettings(certificate=tmp_path / "cert.pem", private_key=tmp_path / "key.pem")
    with pytest.raises(ConfigError, match="certificate or private key cannot be used"):
        UvicornServer(create_app(shared(), settings, NAME), settings)


def test_tls(tmp_path: Path) -> None:
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "2",
    ]
    command += [
        "-subj",
        "/CN=localhost",
        "-addext",
        "subjectAltName=IP:127.0.0.1",
        "-keyout",
        str(key),
        "-out",
        str(cert),
    ]
    subprocess.run(command, check=True, capture_output=True)
    with running(certificate=cert, private_key=key) as url:
        context = ssl.create_default_context(cafile=str(cert))
        connection = http.client.HTTPSConnection(urlsplit(url).netloc, context=context, timeout=30)
        connection.request("GET", "/health")
        assert json.loads(connection.getresponse().read()) == {"status": "ok"}
        connection.close()


def test_running_streams_end_when_the_server_stops() -> None:
    whole = shared().generate("Hello", "legal", max_new_tokens=200).text
    found: list[str] = []
    with running() as url:
        connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)
        body = {"model": "legal", "messages": HELLO, "max_tokens": 200, "stream": True}
        connection.request("POST", "/v1/chat/completions", json.dumps(body), {"content-type": "application/json"})
        response = connection.getresponse()
        first = response.readline()
        reader = threading.Thread(target=lambda: found.append((first + response.read()).decode()))
        reader.start()
    reader.join(30)
    connection.close()
    events = [line[6:] for line in found[0].splitlines() if line.startswith("data: ")]
    assert events[-1] == "[DONE]"
    pieces = [json.loads(one)["choices"][0]["delta"].get("content", "") for one in events[:-1]]
    assert "".join(pieces) == whole


def test_a_stopped_server_accepts_nothing() -> None:
    with running() as url:
        assert chat(url).status == 200
    with pytest.raises(OSError, match="refused"):
        ask(url, "/health")


def test_idle_connections_do_not_hold_up_the_end() -> None:
    started = 0.0
    with running() as url:
        idle = [connected(url) for _ in range(5)]
        assert ask(url, "/health").status == 200
        started = time.monotonic()
    assert time.monotonic() - started < 10
    for one in idle:
        one.close()


def test_the_file_limit_is_raised_to_what_is_allowed() -> None:
    import resource

    raise_file_limit()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert soft == resource.RLIM_INFINITY or soft >= min(65536, hard if hard != resource.RLIM_INFINITY else 65536)
