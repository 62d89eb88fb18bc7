"""Whole runs on a tiny suite, the tables made from them, and runs that reach their time limit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from benchmarks.multitask import run, tables
from tests.benchmarks.support.suite import suite
from tests.support.tiny_training import backbone_dir


def asked(out: Path, *more: str) -> Any:
    """Run the command on the tiny suite."""
    options = ["--data", suite(), "--out", out, "--model", backbone_dir(), "--steps", 2, "--batch", 3, "--test-rows", 2]
    return CliRunner().invoke(run.main, [*map(str, options), *more], catch_exceptions=False)


def test_a_whole_run_and_its_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "runs.jsonl"
    for method in ("lime-lora", "mocle", "prompt-tuning", "moelora"):
        done = asked(out, "--method", method)
        assert done.exit_code == 0, done.output
    lines = [json.loads(line) for line in out.read_text("utf-8").splitlines()]
    assert [line["method"] for line in lines] == ["lime-lora", "mocle", "prompt-tuning", "moelora"]
    assert all(len(line["scores"]) == 21 and line["tokens"] == lines[0]["tokens"] for line in lines)
    assert not any(out.with_suffix(".work").iterdir())
    assert run._finished(out) >= {("lime-lora", 0), ("mocle", 0)}

    monkeypatch.setattr(run, "plan", lambda: [("lime-lora", 0)])
    assert asked(out, "--all").exit_code == 0  # nothing is missing
    assert asked(out).exit_code == 2

    page = tmp_path / "results.md"
    names = ("multitask", "multitask pairs", "multitask tasks", "by another script")
    page.write_text("".join(f"<!-- begin {name} -->\nkept\n<!-- end {name} -->\n" for name in names), "utf-8")
    command = [str(out), "--document", str(page)]
    assert CliRunner().invoke(tables.main, command, catch_exceptions=False).exit_code == 0
    text = page.read_text("utf-8")
    assert text.count("kept") == 1
    assert "| LiME-LoRA - MoELoRA |" in text
    assert (tmp_path / "results" / "multitask.svg").stat().st_size > 1000
    lines[0]["budget"]["steps"] = 9
    out.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    assert "several budgets" in CliRunner().invoke(tables.main, command).output


def test_a_run_out_of_time_says_so_and_goes_on(tmp_path: Path) -> None:
    out = tmp_path / "runs.jsonl"
    assert asked(out, "--method", "lora", "--minutes", "0.0001").exit_code == run._LATE
    assert not out.exists()
    assert asked(out, "--method", "lora").exit_code == 0
    assert len(out.read_text("utf-8").splitlines()) == 1
