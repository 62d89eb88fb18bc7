"""Other engines on the same backbone, each in a process of its own that runs a step when it is told to.

So their turns can stand between ours in one round. Every rival is started, asked what it is, and held to
doing what it is measured for: its LoRA must change the logits. Knows nothing of rounds.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from . import rival_files

_ROOT = Path(__file__).resolve().parents[2]
_PAUSE = 0.005  # seconds for another process's waiting threads to fall asleep
_INSTALL = {
    "genai": "pip install 'lime-edge[export]'",
    "llama": "pip install llama-cpp-python, which compiles it, here or elsewhere with --llama-python",
    "peft": "pip install 'lime-edge[train]'",
}
TITLES = {"genai": "ORT-GenAI", "llama": "llama.cpp", "peft": "PEFT"}
NAMES = tuple(_INSTALL)
PLAIN = "no adapter"  # how the variants without one begin


class Rival:
    """A running worker.

    Args:
        name: One of `NAMES`.
        python: Interpreter that has the engine.
        settings: For the worker.
        log: File for what it prints.

    Raises:
        click.ClickException: It does not start; says what to install.
    """

    def __init__(self, name: str, python: str, settings: Mapping[str, Any], log: Path) -> None:
        self.name, self._log = name, log
        with log.open("w", encoding="utf-8") as said:
            self._process = subprocess.Popen(
                [python, "-m", f"benchmarks.engines.worker_{name}"],
                env={**os.environ, "PYTHONPATH": str(_ROOT)},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=said,
                text=True,
                encoding="utf-8",
            )
        self.variants: dict[str, str] = self._exchange(dict(settings))["variants"]

    def titled(self, variant: str) -> str:
        """What tables call one of its variants."""
        return f"{TITLES[self.name]}, {variant}"

    def ask(self, do: str, **request: Any) -> dict[str, Any]:
        """One request of those in `worker.py`."""
        return self._exchange({"do": do, **request})

    def steps(self, variant: str, token: int, count: int) -> Callable[[], float]:
        """A turn of `count` steps after the prompt that it holds; one more before does not count."""

        def turn() -> float:
            time.sleep(_PAUSE)
            seconds: float = self.ask("steps", variant=variant, token=token, count=count, uncounted=1)["seconds"]
            time.sleep(_PAUSE)
            return seconds

        return turn

    def prefills(self, variant: str, ids: Sequence[int]) -> Callable[[], float]:
        """A turn of one prompt from an empty cache."""

        def turn() -> float:
            time.sleep(_PAUSE)
            seconds: float = self.ask("prompt", variant=variant, ids=list(ids))["seconds"]
            time.sleep(_PAUSE)
            return seconds

        return turn

    def close(self) -> None:
        """End the process: its input is over."""
        with contextlib.suppress(OSError), self._process:  # it may be gone already
            pass

    def _exchange(self, message: dict[str, Any]) -> dict[str, Any]:
        process = self._process
        assert process.stdin is not None  # both are pipes
        assert process.stdout is not None
        line = ""
        with contextlib.suppress(OSError):  # it may be gone already
            process.stdin.write(json.dumps(message) + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
        if not line:
            self.close()
            raise click.ClickException(self._failure())
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _failure(self) -> str:
        tail = "\n".join(self._log.read_text("utf-8", "replace").splitlines()[-8:])
        return (
            f"rival {self.name!r} does not run (exit status {self._process.returncode}):\n{tail}\n{_INSTALL[self.name]}"
        )


@contextlib.contextmanager
def running(
    names: Sequence[str], files: rival_files.Files, python: Mapping[str, str], **settings: Any
) -> Iterator[list[Rival]]:
    """Workers of these rivals, ended with the block.

    Args:
        names: Some of `NAMES`.
        files: What they run.
        python: Interpreters by name of rival; this one for the others.
        **settings: ``threads`` and ``positions``.

    Raises:
        click.ClickException: One does not run, or its LoRA changes nothing.
    """
    with contextlib.ExitStack() as stack:
        made = []
        for name in names:
            click.echo(f"rival {name}: preparing")
            given = settings | files.settings(name)
            rival = Rival(name, python.get(name, sys.executable), given, files.work / f"{name}.log")
            stack.callback(rival.close)
            made.append(rival)
        yield made


def check(rival: Rival, ids: Sequence[int], tokens: int) -> dict[str, list[int]]:
    """What each variant answers to a prompt, greedily.

    Raises:
        click.ClickException: A LoRA gives the logits of the model without it.
    """
    found = {name: rival.ask("greedy", variant=name, ids=list(ids), count=tokens) for name in rival.variants}
    plain = [answer["logits"] for name, answer in found.items() if name.startswith(PLAIN)]
    for name, answer in found.items():
        if not name.startswith(PLAIN) and answer["logits"] in plain:
            raise click.ClickException(f"{rival.titled(name)} gives the logits of the model without an adapter")
    return {name: answer["tokens"] for name, answer in found.items()}
