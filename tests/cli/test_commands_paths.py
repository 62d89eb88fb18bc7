"""Bad values for every argument and option that takes a path or a name: one message, and before the long work.

The command lines are derived from the commands themselves, so that a new command or option is tried, too.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from lime_edge.cli.commands import main
from tests.support.cli_models import backbone, data, lime, trained

#: Parameters that name something in text instead of a path.
NAMES = {"data", "model", "skill", "skills", "reference", "references", "name", "names", "to", "against", "place"}
READ = ("missing/file", "file/below", "n" * 300, "", "garbage", "empty")
WRITTEN = ("file/below", "n" * 300, "")  # the other values are good places to write to
OUTPUTS = {"output", "html", "reference", "target", "receipt"}
#: What passes: an empty name lists the skills, what cannot be compared with is left out, and two words are names.
GOOD = {
    ("chat", "skill", ""),
    *(("audit", "against", bad) for bad in ("garbage", "empty")),
    *((command, "name", bad) for command in ("learn", "serve") for bad in ("garbage", "empty")),
}


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: Path, skill: Path) -> Path:
    """The current folder: bad files, an empty store and cache, and no long work but that of the fixtures."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LIME_EDGE_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("LIME_EDGE_CACHE", str(tmp_path / "cache"))
    for name, content in (
        ("file", b"x"),
        ("garbage", b"caf\xe9\xff\0"),
        ("empty", b""),
        ("key", b"no key"),
        ("receipt.json", b"{}"),
    ):
        (tmp_path / name).write_bytes(content)
    for work in (
        "training.learn_skill.fit",
        "training.train_adapter.fit",
        "exporters.genai_builder._run",
        "training.backbone._fetch_gguf",
        "server.uvicorn_server.serve",
    ):
        monkeypatch.setattr(f"lime_edge.{work}", lambda *_, **__: pytest.fail("the long work began"))
    return tmp_path


def _value(command: str, parameter: click.Parameter, model: Path, skill: Path) -> str:
    """A good value of a required parameter."""
    values = {
        **{"data": data(), "checkpoint": trained()[0], "output": "out", "directory": model, "skill": skill},
        **{"model": backbone() if command == "train" else model, "key": "key", "prompt": "hi", "name": "odd"},
        **{"path": skill, "reference": "out.lime", "references": skill, "files": data()},
        **{"file": "receipt.json", "form": "onnx-adapter", "folder": skill.parent, "place": "site"},
    }
    return str(values[str(parameter.name)])


def _lines(command: click.Command, model: Path, skill: Path) -> Iterator[tuple[str, str, list[str]]]:
    """Parameter, bad value and command line, for every parameter of a command and every bad value."""
    for tried in command.params:
        if not (isinstance(tried.type, click.Path) or tried.name in NAMES or tried.name == "target"):
            continue
        written = tried.name in OUTPUTS or command.name == "demo"
        for bad in WRITTEN if written else READ:
            line = []
            for parameter in sorted(command.params, key=lambda one: isinstance(one, click.Argument)):
                if parameter is tried or parameter.required:
                    flags = [parameter.opts[-1]] if isinstance(parameter, click.Option) else []
                    given = bad if parameter is tried else _value(str(command.name), parameter, model, skill)
                    line += [*flags, f"{given}.json" if parameter.name == "target" else given]
            yield str(tried.name), bad, line


@pytest.mark.parametrize("command", list(main.commands))
def test_bad_paths_and_names_end_in_one_message(command: str, model: Path, skill: Path) -> None:
    for parameter, bad, line in _lines(main.commands[command], model, skill):
        if (command, parameter, bad) in GOOD or (parameter == "target" and not bad):
            continue
        result = lime(command, *line, stdin="")
        assert result.exit_code in (1, 2), (line, result.output)
        assert "Error: " in result.stderr or command in ("verify", "update"), (line, result.output)


def test_what_was_tried_is_what_there_is(model: Path, skill: Path) -> None:
    tried = {(name, one) for name, command in main.commands.items() for one, _, _ in _lines(command, model, skill)}
    assert {
        ("learn", "rounded"),
        ("train", "data"),
        ("push", "reference"),
        ("eval", "skills"),
        ("run", "trust"),
    } <= tried


@pytest.mark.parametrize("command", ["train", "learn"])
def test_nothing_is_created_before_the_data_are_read(command: str, place: Path) -> None:
    (place / "bad.jsonl").write_text('{"prompt": 1}\n', "utf-8")
    before = sorted(place.rglob("*"))
    rest: list[str | Path] = ["-m", backbone()] if command == "train" else ["-c", trained()[0], "--name", "x"]
    output = place / "new" / "folder" / "x.lime"
    result = lime(command, place / "bad.jsonl", *rest, "-o", output)
    assert "line 1" in result.stderr
    assert sorted(place.rglob("*")) == before


def test_an_unusable_store_or_cache_is_named(monkeypatch: pytest.MonkeyPatch, model: Path, skill: Path) -> None:
    for place in ("file/below", "n" * 300):
        monkeypatch.setenv("LIME_EDGE_STORE", place)
        for line in ("list", "info x", "update", "gc", f"pull {skill}", "remove x"):
            result = lime(*line.split())
            assert (result.exit_code, place in result.stderr) == (1, True), (line, result.output)
        monkeypatch.setenv("LIME_EDGE_CACHE", place)
        assert lime("doctor").exit_code == 0
        result = lime("train", data(), "-m", "default", "-o", "out")
        assert "set LIME_EDGE_CACHE to a folder that can" in result.stderr
