"""Scratch folders: deleted at the end, collected after a kill, never taken from a running process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lime_edge.common.scratch_folder import put_in_place, scratch_folder

_HOLD = """
import os, pathlib, sys
from lime_edge.common.scratch_folder import put_in_place, scratch_folder
target = pathlib.Path(sys.argv[1])
with scratch_folder(target) as folder:
    (folder / "made").mkdir()
    (folder / "made" / "part").write_bytes(bytes(1000))
    if sys.argv[2] == "between":
        target.rename(folder / "old")
    print(folder, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "out.model"


def held(target: Path, when: str = "") -> tuple[subprocess.Popen[str], Path]:
    """Another process that is in the middle of its work, and its folder."""
    command = [sys.executable, "-c", _HOLD, str(target), when]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def kill(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


def test_nothing_stays(target: Path) -> None:
    with scratch_folder(target) as folder:
        assert folder.parent == target.parent
        assert folder.is_dir()
    with pytest.raises(RuntimeError), scratch_folder(target) as folder:
        _fail_in(folder)
    assert not list(target.parent.iterdir())


def _fail_in(folder: Path) -> None:
    (folder / "file").touch()
    raise RuntimeError


def test_what_a_killed_process_left_is_collected(target: Path) -> None:
    process, folder = held(target)
    kill(process)
    assert (folder / "made" / "part").is_file()
    with scratch_folder(target) as mine:
        assert mine != folder
        assert not folder.exists()
    assert not list(target.parent.iterdir())


def test_what_a_running_process_uses_stays(target: Path) -> None:
    process, folder = held(target)
    with scratch_folder(target):
        assert (folder / "made" / "part").is_file()
    assert process.communicate("")[0] == ""
    assert process.returncode == 0
    assert not list(target.parent.iterdir())


def test_other_files_stay(target: Path) -> None:
    names = [".out.model-backup", ".out.model-12345678", ".outxmodel-12345678.lock", ".out.model-1234567g.lock"]
    for name in names:
        (target.parent / name).mkdir()
    with scratch_folder(target):
        pass
    assert sorted(os.listdir(target.parent)) == sorted(names)


def test_a_lock_alone_is_collected(target: Path) -> None:
    (target.parent / ".out.model-12345678.lock").touch()
    with scratch_folder(target):
        pass
    assert not list(target.parent.iterdir())


def test_a_directory_is_replaced(target: Path) -> None:
    for number in range(2):
        with scratch_folder(target) as folder:
            (folder / "made").mkdir()
            (folder / "made" / str(number)).touch()
            put_in_place(folder / "made", target, folder)
    assert [path.name for path in target.iterdir()] == ["1"]
    with scratch_folder(target) as folder, pytest.raises(FileNotFoundError):
        put_in_place(folder / "missing", target, folder)
    assert [path.name for path in target.iterdir()] == ["1"]


def test_the_old_directory_comes_back_after_a_kill_between_the_renames(target: Path) -> None:
    target.mkdir()
    (target / "precious").touch()
    kill(held(target, "between")[0])
    assert not target.exists()
    with scratch_folder(target):
        assert [path.name for path in target.iterdir()] == ["precious"]
    assert [path.name for path in target.parent.iterdir()] == ["out.model"]
