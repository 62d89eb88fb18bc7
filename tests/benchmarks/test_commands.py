"""Commands of the benchmarks in documents and docstrings: their modules, options and files exist."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from tests.support.paths import DOCS, ROOT

SOURCES = sorted((ROOT / "benchmarks").rglob("*.py"))
PAGES = [ROOT / "README.md", *(path for path in sorted(DOCS.glob("*.md")) if path.name != "log.md")]
#: Module, and what follows it up to the end of the command.
_COMMAND = re.compile(r"python -m (benchmarks\.[\w.]+\w)([^`\n]*)")
_PATH = re.compile(r"\bbenchmarks/[\w/.-]*\.(?:py|h|cpp)\b")


def _texts() -> Iterator[tuple[Path, str]]:
    """Documents and module docstrings; continued lines are joined."""
    for path in PAGES:
        yield path, re.sub(r"\\\n\s*", "", path.read_text("utf-8"))
    for path in SOURCES:
        yield path, ast.get_docstring(ast.parse(path.read_text("utf-8"))) or ""


def _runnable() -> set[str]:
    """Modules with a command line, except those that only other benchmarks start."""
    return {
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in SOURCES
        if "\n    main()\n" in path.read_text("utf-8").partition('if __name__ == "__main__":')[2]
    }


COMMANDS = sorted({(module, rest) for _, text in _texts() for module, rest in _COMMAND.findall(text)})


def test_every_command_line_is_documented_and_every_documented_one_exists() -> None:
    assert {module for module, _ in COMMANDS} == _runnable()


@pytest.mark.parametrize("module", sorted(_runnable()))
def test_documented_options_exist(module: str) -> None:
    command = importlib.import_module(module).main
    assert isinstance(command, click.Command)
    for rest in [rest for name, rest in COMMANDS if name == module]:
        words = re.sub(r"\s#.*", "", rest).split()
        one = command.commands[words[0]] if isinstance(command, click.Group) else command
        options = {option for parameter in one.params for option in parameter.opts}
        assert set(re.findall(r"(?<![\w-])--?[a-z][\w-]*", " ".join(words))) <= options, rest


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_files_that_a_document_names_exist(path: Path) -> None:
    assert [name for name in _PATH.findall(path.read_text("utf-8")) if not (ROOT / name).is_file()] == []


def test_every_folder_says_what_it_holds() -> None:
    for folder in {path.parent for path in SOURCES}:
        assert ast.get_docstring(ast.parse((folder / "__init__.py").read_text("utf-8"))), folder
