"""Standard streams of a command: undecodable input, poor encodings, closed streams, readers that stop early."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lime_edge.cli.streams import checked, prepare, read_input
from lime_edge.errors import DataError
from tests.support.cli_models import lime
from tests.support.paths import ROOT

SHORT = ("--max-new-tokens", "4")


def _command(*args: str | Path, shell: str = "", **environment: str) -> subprocess.CompletedProcess[bytes]:
    """Run a command in a process of its own; `shell` is appended to its command line."""
    words = ["exec", sys.executable, "-m", "lime_edge", *map(str, args)]
    line = " ".join(f"'{word}'" if position > 0 else word for position, word in enumerate(words))
    return subprocess.run(
        ["sh", "-c", f"{line} {shell}"], cwd=ROOT, env={**os.environ, **environment}, capture_output=True, check=False
    )


def test_input_that_is_not_text_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"caf\xe9"), "utf-8"))
    prepare()
    with pytest.raises(DataError, match=r"standard input is not text in utf-8: character 4 is byte 0xe9; convert it"):
        read_input()
    with pytest.raises(DataError, match=r"PROMPT is not text in utf-8: character 1 is '\\ud83d'"):
        checked("\ud83d", "PROMPT")
    assert checked("é😀\x00", "PROMPT") == "é😀\x00"


def test_input_that_cannot_be_read_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with open(tmp_path / "written", "w", encoding="utf-8") as written:
        monkeypatch.setattr(sys, "stdin", written)
        with pytest.raises(DataError, match="standard input cannot be read: not readable"):
            read_input()


def test_closed_streams_become_the_null_device(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("stdin", "stdout", "stderr"):
        monkeypatch.setattr(sys, name, None)
    prepare()
    assert read_input() == ""
    assert (sys.stdout.write("x"), sys.stderr.write("x")) == (1, 1)
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        stream.close()


def test_characters_that_an_encoding_lacks_become_question_marks(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, "cp1252"))
    prepare()
    sys.stdout.write("é ✓ \udce9\n")
    sys.stdout.flush()
    assert written.getvalue().split() == [b"\xe9", b"?", b"?"]


def test_run_refuses_input_and_prompts_that_are_not_text(model: Path, tmp_path: Path) -> None:
    (tmp_path / "latin1").write_bytes(b"caf\xe9")
    done = _command("run", model, "-", *SHORT, shell=f"< '{tmp_path}/latin1'")
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr.startswith(b"Error: standard input is not text in utf-8: character 4 is byte 0xe9")
    result = lime("run", model, "a \udce9", *SHORT)
    assert (result.exit_code, result.stderr.startswith("Error: PROMPT is not text in")) == (1, True)


def test_a_chat_goes_on_after_a_line_that_is_not_text(model: Path, tmp_path: Path) -> None:
    (tmp_path / "lines").write_bytes(b"caf\xe9\nSay 1\n")
    done = _command("chat", model, *SHORT, shell=f"< '{tmp_path}/lines'")
    answer = lime("run", model, "Say 1", *SHORT).stdout
    assert done.returncode == 0, done.stderr
    assert b"the line is not text in utf-8: character 4 is byte 0xe9" in done.stdout
    assert f"base> {answer}" in done.stdout.decode()


@pytest.mark.parametrize("command", ["list", "run", "inspect", "--help"])
def test_a_reader_that_stops_early_ends_a_command_quietly(command: str, model: Path) -> None:
    args = {"list": ["list", model], "run": ["run", model, "Say 1", "--stream", *SHORT], "inspect": ["inspect", model]}
    reader, writer = os.pipe()
    os.close(reader)
    line = [sys.executable, "-m", "lime_edge", *map(str, args.get(command, [command]))]
    done = subprocess.run(line, cwd=ROOT, stdout=writer, stderr=subprocess.PIPE, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, b"")


def test_a_closed_or_full_standard_output(model: Path) -> None:
    closed = _command("list", model, shell=">&-")
    assert (closed.returncode, closed.stderr) == (0, b"")
    if Path("/dev/full").exists():
        for args in (["list", model, "--json"], ["list", model], ["--help"], ["run", "--help"], ["--version"]):
            full = _command(*args, shell="> /dev/full")
            assert full.returncode == 1, args
            assert full.stderr.strip() == b"Error: standard output cannot be written: No space left on device", args


def test_a_poor_encoding_of_the_output(model: Path) -> None:
    lines: list[list[str | Path]] = [["list", model], ["list", model, "--json"], ["run", model, "é ✓", *SHORT]]
    for args in lines:
        done = _command(*args, PYTHONIOENCODING="ascii")
        assert (done.returncode, done.stderr) == (0, b""), args
        assert done.stdout.isascii()
