"""The group of all commands: imports, help, errors, exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import lime_edge
from lime_edge.cli.commands import main
from tests.support.cli_models import lime, python
from tests.tools import cli_docs

MAKING, USING = (
    ("train", "learn", "route", "export"),
    ("inspect", "run", "chat", "eval", "compare", "receipt", "serve", "list"),
)


STORING = ("pull", "push", "info", "update", "rollback", "remove", "gc", "card", "pack", "index", "search")


TRUST, LAST = ("sign", "verify", "audit"), ("doctor", "demo")


HEAVY = {"torch", "transformers", "peft", "onnxruntime", "onnx", "onnx_ir", "numpy", "rich"}


BASE = (
    *("cli.chat", "cli.demo", "evaluation.evaluate", "evaluation.examples", "evaluation.metrics"),
    *("reports.describe", "reports.doctor", "reports.tables", "store.lookup"),
)


def test_help_needs_nothing_heavy() -> None:
    done = python(f"import sys, lime_edge.cli; print(sorted(set(sys.modules) & {HEAVY!r}))")
    assert done.stdout.strip() == "[]"


def test_what_runs_models_needs_the_base_install_only() -> None:
    imports = "; ".join(f"import lime_edge.{name}" for name in BASE)
    done = python(f"import sys; {imports}; print(sorted(set(sys.modules) & {HEAVY!r}))")
    assert json.loads(done.stdout.replace("'", '"')) == ["numpy", "onnxruntime"]


def test_the_page_is_current() -> None:
    assert cli_docs.PAGE.read_text("utf-8") == cli_docs.page(), "python -m tests.tools.cli_docs"


def test_version() -> None:
    assert lime("--version").output == f"lime-edge, version {lime_edge.__version__}\n"


def test_other_errors_are_not_swallowed(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: Path) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr("lime_edge.reports.describe.describe_path", broken)
    with pytest.raises(RuntimeError, match="a bug"):
        lime("inspect", "anything")


def test_ctrl_c_is_tidy(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("lime_edge.reports.describe.describe_path", interrupted)
    result = lime("inspect", "anything")
    assert (result.exit_code, result.stderr.strip()) == (130, "stopped")


@pytest.mark.parametrize("command", MAKING)
def test_a_missing_extra_says_what_to_install(command: str, tmp_path: Path) -> None:
    arguments: dict[str, list[str | Path]] = {
        "train": ["x.jsonl", "-m", "default", "-o", tmp_path / "o"],
        "learn": ["x.jsonl", "-c", tmp_path, "--name", "x", "-o", tmp_path / "x.lime"],
        "route": ["x.jsonl", "-c", tmp_path],
        "export": [tmp_path, "-o", tmp_path / "o"],
    }
    code = "import sys; sys.modules['torch'] = None; from lime_edge.cli import main; main()"
    done = python(code, command, *arguments[command])
    assert done.returncode == 1
    extra = "export" if command == "export" else "train"
    assert done.stderr.startswith("Error: ")
    assert f"pip install 'lime-edge[{extra}]'" in done.stderr


def test_every_command_says_what_it_does() -> None:
    assert list(main.commands) == ["data", *MAKING, *USING, *STORING, *TRUST, *LAST]
    assert all(command.help for command in main.commands.values())
