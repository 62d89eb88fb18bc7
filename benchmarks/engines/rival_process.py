"""Runs other engines on the same backbone, each in a worker process that runs one step per request.

So their turns can be interleaved with ours in one round. `check` verifies that a rival's LoRA changes its logits.
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
_PAUSE = 0.005  # seconds after which another process's idle threads have stopped spinning
_INSTALL = {
    "genai": "pip install 'lime-edge[export]'",
    "llama": "pip install llama-cpp-python (compiles it), here or for another interpreter named by --llama-python",
    "peft": "pip install 'lime-edge[train]'",
}
TITLES = {"genai": "ORT-GenAI", "llama": "llama.cpp", "peft": "PEFT"}
NAMES = tuple(_INSTALL)
PLAIN = "no adapter"  # prefix of the variants without an adapter


class Rival:
    """A running worker.

    Args:
        name: One of `NAMES`.
        python: Interpreter in which the engine is installed.
        settings: Settings of the worker.
        log: File for its standard error.
        module: The worker, below benchmarks.engines.

    Raises:
        click.ClickException: The worker does not start; the message says what to install.
    """

    def __init__(
        self, name: str, python: str, settings: Mapping[str, Any], log: Path, module: str | None = None
    ) -> None:
        self.name, self._log = name, log
        with log.open("w", encoding="utf-8") as errors:
            self._process = subprocess.Popen(
                [python, "-m", f"benchmarks.engines.{module or f'worker_{name}'}"],
                env={**os.environ, "PYTHONPATH": str(_ROOT)},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                encoding="utf-8",
            )
        self.variants: dict[str, str] = self._exchange(dict(settings))["variants"]

    def titled(self, variant: str) -> str:
        """Name of a variant in the tables."""
        return f"{TITLES[self.name]}, {variant}"

    def ask(self, do: str, **request: Any) -> dict[str, Any]:
        """Send a request that worker.py defines, and return the answer.

        Raises:
            click.ClickException: The worker has ended.
        """
        return self._exchange({"do": do, **request})

    def steps(self, variant: str, token: int, count: int) -> Callable[[], float]:
        """A turn of one uncounted step and `count` timed steps after the worker's current prompt."""

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
        """Close the worker's input, which ends it, and wait for it."""
        with contextlib.suppress(OSError), self._process:  # it may have ended already
            pass

    def _exchange(self, message: dict[str, Any]) -> dict[str, Any]:
        process = self._process
        assert process.stdin is not None  # both are pipes
        assert process.stdout is not None
        line = ""
        with contextlib.suppress(OSError):  # it may have ended already
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
    """Start the workers of some rivals; they end with the block.

    Args:
        names: Some of `NAMES`.
        files: Makes the files they load.
        python: Interpreters by rival; the current one for the others.
        **settings: ``threads`` and ``positions``.

    Raises:
        click.ClickException: A worker does not start.
    """
    with contextlib.ExitStack() as stack:
        made = []
        for name in names:
            click.echo(f"rival {name}: preparing")
            whole = settings | files.settings(name)
            rival = Rival(name, python.get(name, sys.executable), whole, files.work / f"{name}.log")
            stack.callback(rival.close)
            made.append(rival)
        yield made


def check(rival: Rival, ids: Sequence[int], tokens: int) -> dict[str, list[int]]:
    """Greedy answers of every variant to a prompt.

    Raises:
        click.ClickException: A LoRA does not change the logits.
    """
    found = {name: rival.ask("greedy", variant=name, ids=list(ids), count=tokens) for name in rival.variants}
    plain = [answer["logits"] for name, answer in found.items() if name.startswith(PLAIN)]
    for name, answer in found.items():
        if not name.startswith(PLAIN) and answer["logits"] in plain:
            raise click.ClickException(f"{rival.titled(name)} gives the logits of the model without an adapter")
    return {name: answer["tokens"] for name, answer in found.items()}
