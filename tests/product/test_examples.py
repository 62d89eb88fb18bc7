"""The examples run on a tiny model and on files made by the commands."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest

from tests.support.cli_models import data, exported, learned, one_thread, trained
from tests.support.paths import EXAMPLES


class Example:
    """Runs an example as a script and returns the lines that it printed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch, self._capsys = monkeypatch, capsys

    def __call__(self, name: str, *args: str | Path) -> list[str]:
        self._capsys.readouterr()
        self._monkeypatch.setattr(sys, "argv", [name, *map(str, args)])
        with one_thread():
            runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        return self._capsys.readouterr().out.splitlines()


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Example:
    return Example(monkeypatch, capsys)


def test_app(example: Example) -> None:
    lines = example("app.py", exported()[0], learned()[0])
    assert lines[0].startswith("base: ")
    assert any(line.startswith("legal: ") for line in lines)


def test_mixed_batch(example: Example) -> None:
    lines = example("mixed_batch.py", exported()[0], learned()[0])
    assert [line.partition(":")[0] for line in lines] == ["base", "odd"]
    assert len(example("mixed_batch.py", exported()[0])) == 1  # without skills, the base alone answers


def test_learn_a_skill(example: Example, tmp_path: Path) -> None:
    lines = example("learn_a_skill.py", data() / "valid.jsonl", trained()[0], tmp_path / "mine.lime", "2")
    assert (tmp_path / "mine.lime").is_file()
    assert any("after 2 steps" in line for line in lines)
    assert any("held back" in line for line in lines)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
def test_module_skills(example: Example, tmp_path: Path) -> None:
    lines = example("module_skills.py", tmp_path / "shapes", "2")
    assert [line.partition(":")[0] for line in lines] == [
        "shapes-fog.lime",
        "shapes-negative.lime",
        "day",
        "fog",
        "negative",
    ]
    assert (tmp_path / "shapes" / "lime.json").is_file()


def test_every_example_is_tested() -> None:
    assert {path.name for path in EXAMPLES.glob("*.py")} == {
        "app.py",
        "learn_a_skill.py",
        "mixed_batch.py",
        "module_skills.py",
        "serve_client.py",  # with a running server: tests/server/slow
    }
