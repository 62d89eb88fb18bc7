"""Runs the speed benchmarks on tiny models, as their command lines do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
from click.testing import CliRunner

from tests.support.runtime_models import exported, scratch, skill


def compared(command: click.Command, tmp_path: Path, **options: Any) -> dict[str, Any]:
    """Run a comparison (decode, prefill) of two skills on the tiny model; returns the JSON that it writes."""
    model = exported(precision="fp32")
    files = [str(skill(model, one)) for one in ("one", "other")]
    options |= {"model": scratch() / "llama", "json": tmp_path / "out.json", "work": tmp_path / "work"}
    given = [str(model), *files, *(f"--{name}={value}" for name, value in options.items())]
    done = CliRunner().invoke(command, given, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    found: dict[str, Any] = json.loads((tmp_path / "out.json").read_text("utf-8"))
    return found


def variants(group: dict[str, Any]) -> list[str]:
    """Names of a group's variants."""
    return [figure["name"] for figure in group["figures"]]


def measured(command: click.Command, tmp_path: Path, *options: str) -> dict[str, Any]:
    """Run a benchmark of one skill (switch, memory, trust) on the tiny model; returns the JSON that it writes."""
    model, found = exported(), tmp_path / "figures.json"
    file = skill(model, "legal", activation="always")
    arguments = [str(model), str(file), "--work", str(tmp_path), "--json", str(found), *options]
    done = CliRunner().invoke(command, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    document: dict[str, Any] = json.loads(found.read_text("utf-8"))
    return document
