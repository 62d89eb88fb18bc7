"""Tables and JSON on standard output, and text from untrusted sources in them."""

from __future__ import annotations

import errno
import io
import json
import sys
from functools import partial
from pathlib import Path

import pytest

from lime_edge.errors import ConfigError
from lime_edge.reports.tables import STDOUT, Table, report, say

TABLE = Table("a title", [("[bold]red\x1b[31m[/bold]", "7")], ("name", "count"), (1,))
DOCUMENT = {"name": "é\u2028", "count": 7}
SAY, JSON = partial(say, "x"), partial(report, DOCUMENT, [], STDOUT)


def test_tables_show_untrusted_text_without_markup_or_escapes(capsys: pytest.CaptureFixture[str]) -> None:
    report(DOCUMENT, [TABLE], None)
    shown = capsys.readouterr().out
    assert all(word in shown for word in ("a title", "name", "count", "[bold]red\N{REPLACEMENT CHARACTER}[31m[/bold]"))
    assert "\x1b" not in shown


def test_a_table_without_columns_is_a_list_of_facts(capsys: pytest.CaptureFixture[str]) -> None:
    report(DOCUMENT, [Table("", [("key", "x" * 200)])], None)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 110
    assert sum(line.count("x") for line in lines) == 200  # folded, not cut


def test_json_takes_the_place_of_the_tables(capsys: pytest.CaptureFixture[str]) -> None:
    report(DOCUMENT, [TABLE], STDOUT)
    assert json.loads(capsys.readouterr().out) == DOCUMENT


def test_a_file_gets_the_json_and_the_screen_the_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report(DOCUMENT, [TABLE], str(tmp_path / "facts.json"))
    assert json.loads((tmp_path / "facts.json").read_text("utf-8")) == DOCUMENT
    assert "a title" in capsys.readouterr().out
    with pytest.raises(ConfigError, match=r"facts.json cannot be written: No such file"):
        report(DOCUMENT, [], str(tmp_path / "no" / "facts.json"))


def test_answers_are_made_safe_for_a_terminal_alone(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    say("a\x1b[2Jb\n")
    assert capsys.readouterr().out == "a\x1b[2Jb\n"
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    say("a\x1b[2Jb\n")
    assert capsys.readouterr().out == "a\N{REPLACEMENT CHARACTER}[2Jb\n"


def test_json_is_ascii_where_the_encoding_lacks_a_character(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = {"file": "na\udcefme"}  # of a file whose name is not UTF-8
    for target in (STDOUT, str(tmp_path / "facts.json")):
        report(odd, [], target)
    assert json.loads(capsys.readouterr().out) == json.loads((tmp_path / "facts.json").read_text("utf-8")) == odd
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, "cp1252", "replace"))
    report({"text": "é✓"}, [], STDOUT)
    assert json.loads(written.getvalue()) == {"text": "é✓"}


class _Full(io.StringIO):
    """Standard output on a full disk, or of a reader that is gone."""

    def __init__(self, error: OSError) -> None:
        super().__init__()
        self.error = error

    def flush(self) -> None:
        raise self.error


def test_output_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    for call in (SAY, partial(report, DOCUMENT, [TABLE], None), JSON):
        monkeypatch.setattr(sys, "stdout", _Full(OSError(errno.ENOSPC, "No space left on device")))
        with pytest.raises(ConfigError, match="standard output cannot be written: No space left on device"):
            call()
        say("goes to the null device from here on")
        sys.stdout.close()


def test_a_reader_that_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", _Full(BrokenPipeError(errno.EPIPE, "Broken pipe")))
    for call in (SAY, JSON):  # for tables, rich ends the process
        with pytest.raises(BrokenPipeError):
            call()
