"""The examples run, on a tiny model and with what the commands make."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from .cli_models import data, exported, learned, trained

ROOT = Path(__file__).resolve().parent.parent


def _example(name: str, *args: str | Path) -> str:
    command = [sys.executable, str(ROOT / "examples" / name), *map(str, args)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_app() -> None:
    lines = _example("app.py", exported()[0], learned()[0]).splitlines()
    assert any(line.startswith("base: ") for line in lines)
    assert any(line.startswith("legal: ") for line in lines)


@pytest.mark.parametrize("packages", [0, 1])
def test_mixed_batch(packages: int) -> None:
    said = _example("mixed_batch.py", exported()[0], *[learned()[0]] * packages)
    assert [line.partition(":")[0] for line in said.splitlines()] == ["base", "odd"]


def test_learn_a_skill(tmp_path: Path) -> None:
    said = _example("learn_a_skill.py", data() / "valid.jsonl", trained()[0], tmp_path / "mine.lime", "2")
    assert (tmp_path / "mine.lime").is_file()
    assert "after 2 steps" in said
    assert "held back" in said
