"""`lime-edge serve`, as a process of its own."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lime_edge.runtime import Runtime
from tests.server.served import Answer, ask
from tests.support.cli_models import fails
from tests.support.paths import ROOT


@contextmanager
def serving(*args: str | Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Run the command; yields the URL and the process."""
    command = [sys.executable, "-m", "lime_edge", "serve", *map(str, args), "--port", "0", "--threads", "1"]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        yield next(line["url"] for line in map(json.loads, process.stderr) if line["event"] == "listening"), process
    finally:
        process.kill()
        process.stderr.close()
        process.wait()


def chat(url: str, model: str, headers: dict[str, str] | None = None, **fields: Any) -> Answer:
    body = {"model": model, "messages": [{"role": "user", "content": "Say 1"}], "max_tokens": 8, **fields}
    return ask(url, "/v1/chat/completions", body, headers)


def test_a_model_and_its_skills(model: Path, skill: Path, tmp_path: Path) -> None:
    runtime = Runtime.load(model)
    runtime.load_skill(skill)
    keys = tmp_path / "keys"
    keys.write_text("alice 0123456789abcdef\n", "utf-8")
    key = {"Authorization": "Bearer 0123456789abcdef"}
    with serving(model, "--name", "small", "--api-keys", keys, "--page") as (url, process):
        assert chat(url, "odd").status == 401
        for name, chosen in (("small", None), ("odd", "odd"), ("small:odd", "odd")):
            found = chat(url, name, key).json["choices"][0]["message"]["content"]
            assert found == runtime.generate("Say 1", chosen, max_new_tokens=8).text
        process.send_signal(signal.SIGTERM)
        assert process.stderr is not None
        log = [json.loads(line) for line in process.stderr]
        assert [line["client"] for line in log if line["event"] == "answered"] == ["alice"] * 3
        assert log[-1]["event"] == "stopped"
        assert process.wait(30) in (0, -signal.SIGTERM)


def test_faults_are_told_before_the_model_is_loaded(model: Path, tmp_path: Path) -> None:
    refused: Sequence[tuple[Sequence[str | Path], str]] = (
        (("--host", "0.0.0.0"), "anyone who reaches this machine could use the server"),
        (("--api-keys", tmp_path / "none"), "cannot be read"),
        (("--certificate", tmp_path / "c.pem"), "one of certificate and private key is missing"),
    )
    for options, words in refused:
        assert words in fails("serve", model, *options)
    assert "lime.json" in fails("serve", tmp_path)
