"""The store after a process that used it was killed."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from tests.support.paths import ROOT
from tests.tools import kill_store
from tests.tools.crash_store import OPERATIONS


@pytest.mark.parametrize("name", OPERATIONS)
def test_death_at_every_call_to_the_system(name: str) -> None:
    """Runs in a separate process, because forking a process with threads is unsafe."""
    command = [sys.executable, "-m", "tests.tools.crash_store", name]
    done = subprocess.run(command, cwd=ROOT, env=quiet(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    died = json.loads(done.stdout)[name]
    assert {"open", "unlink" if name == "gc" else "replace"} <= died.keys()
    assert sum(died.values()) >= 10


def test_kill_9_at_random() -> None:
    """A few rounds; `python -m tests.tools.kill_store` runs 300."""
    command = [sys.executable, "-m", "tests.tools.kill_store", "--rounds", "15", "--workers", "3"]
    done = subprocess.run(command, cwd=ROOT, env=quiet(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["kills"] >= 15
    assert set(found["by operation"]) <= set(kill_store.OPERATIONS)


def quiet() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
