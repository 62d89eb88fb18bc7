"""The benchmark of the prefix cache: both sides are measured, and only one of them keeps anything."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner

from benchmarks.harness.rounds import read
from benchmarks.speed.contexts import main
from tests.support.runtime_models import exported


def test_turns_and_questions_are_measured(tmp_path: Path) -> None:
    path = tmp_path / "contexts.json"
    arguments = [str(exported()), "--tokens", "100", "--questions", "2", "--rounds", "2", "--threads", "1"]
    result = CliRunner().invoke(main, [*arguments, "--json", str(path)], catch_exceptions=False)
    assert result.exit_code == 0
    groups = read(path)["groups"]
    assert [group.title for group in groups] == [
        "second turn after 100 tokens, 1 thread",
        "2 questions on 100 tokens, 1 thread",
    ]
    for group in groups:
        assert [figure.name for figure in group.figures] == ["read again", "kept"]
        assert list(group["kept"].ratios) == ["read again"]
