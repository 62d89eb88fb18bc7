"""Fixtures of the command-line tests: data, a backbone, a checkpoint, a skill and a model, each made once.

The commands under test make all but the data and the backbone.
"""

from __future__ import annotations

import atexit
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import torch
from click.testing import CliRunner, Result

from lime_edge.cli.commands import main
from tests.support.paths import ROOT
from tests.support.tiny import tiny_model


@cache
def scratch() -> Path:
    """A temporary folder that is deleted when the process ends."""
    path = Path(tempfile.mkdtemp(prefix="lime-cli-"))
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    return path


def lime(*args: str | Path, stdin: str | None = None) -> Result:
    """Run a command; exceptions that the command line does not handle propagate."""
    with one_thread():
        return CliRunner().invoke(main, [str(arg) for arg in args], input=stdin, catch_exceptions=False)


@contextmanager
def one_thread() -> Iterator[None]:
    """Limit torch to one thread: on a busy machine a tiny model only waits for a second one."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def facts(*args: str | Path) -> Any:
    """Run a command with --json, check that it succeeds, and return the document."""
    result = lime(*args, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def fails(*args: str | Path, code: int = 1) -> str:
    """Run a command, check that it fails with `code` and prints no result, and return its standard error."""
    result = lime(*args)
    assert result.exit_code == code, result.output
    assert not result.stdout
    return result.stderr


def python(code: str, *args: str | Path) -> subprocess.CompletedProcess[str]:
    """Run Python code with command-line arguments in a new process."""
    command = [sys.executable, "-c", code, *map(str, args)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    """Write rows to a JSONL file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


@cache
def data() -> Path:
    """A task with choices; train and test also have free answers, which take longer to measure."""
    folder = scratch() / "data"
    for split, numbers in (("train", range(8)), ("valid", range(8, 12)), ("test", range(6))):
        rows: list[dict[str, Any]] = []
        for i in numbers:
            rows.append({"prompt": f"Is {i} even?", "answer": ("yes", "no")[i % 2], "choices": ["yes", "no"]})
            if split != "valid":
                rows.append({"prompt": f"Say {i}", "answer": f"the answer is {i}"})
        write_rows(folder / f"{split}.jsonl", rows)
    return folder


@cache
def backbone() -> Path:
    """A tiny Llama with random weights."""
    return tiny_model("llama", scratch() / "backbone")


TRAIN = ("--batch", "4", "--rank", "2", "--experts", "3", "--save-every", "1")


@cache
def trained() -> tuple[Path, Any]:
    """A checkpoint, and the JSON document of `train`."""
    checkpoint = scratch() / "checkpoint"
    return checkpoint, facts("train", data(), "-m", backbone(), "-o", checkpoint, "--steps", "2", *TRAIN)


@cache
def learned() -> tuple[Path, Any]:
    """A skill named ``odd``, and the JSON document of `learn`."""
    output = scratch() / "odd.lime"
    about = ("--description", "says [bold]odd[/bold] things", "--author", "me", "--license", "MIT")
    settings = ("--name", "odd", "--steps", "2", "--batch", "4", "--rate", "0.5", "--metric-rows", "4", *about)
    return output, facts("learn", data(), "-c", trained()[0], "-o", output, *settings)


@cache
def exported() -> tuple[Path, Any]:
    """An exported model with the skill in its skills/, and the JSON document of `export`."""
    directory = scratch() / "model"
    said = facts("export", trained()[0], "-o", directory, "--precision", "fp32")
    (directory / "skills").mkdir()
    shutil.copy(learned()[0], directory / "skills")
    return directory, said
