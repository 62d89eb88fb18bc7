"""Means over categories, differences of losses, and docs/results.md, which is current."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from benchmarks.harness.result_lines import RESULTS
from benchmarks.multitask import tables
from benchmarks.multitask.data import TASKS


def test_categories_are_means_of_tasks() -> None:
    line: dict[str, Any] = {
        "scores": {task: {"accuracy": 0.5} for some in TASKS.values() for task in some},
        "losses": {task: 0.25 for some in TASKS.values() for task in some},
        "budget": {"test_rows": 100},
    }
    line["losses"]["rte"] = 2.35
    line["scores"]["qqp"] = {"accuracy": 0.6, "f1": 0.8}
    row = tables.Row("x", [line])
    assert row.category("glue") == [pytest.approx(100 * (7 * 0.5 + 0.7) / 8)]
    assert row.error("vision_benchmark") == pytest.approx(5)
    assert row.loss() == [pytest.approx(0.25 + 2.1 / 21)]


def test_a_gap_of_losses_counts_where_the_tasks_agree() -> None:
    ours = {"a": 1.2, "b": 2.3, "c": 0.4}
    assert tables._loss_gap(ours, {"a": 1.1, "b": 2.2, "c": 0.3}) == "+0.100 (noise 0.000) **above**"
    assert "above" not in tables._loss_gap(ours, {"a": 1.5, "b": 2.2, "c": 0.1})


def test_the_page_is_that_of_the_results(tmp_path: Path) -> None:
    page = tmp_path / "results.md"
    page.write_text(tables.DOCUMENT.read_text("utf-8"), "utf-8")
    words = [RESULTS / "multitask.jsonl", "--speed", RESULTS / "train-speed.json", "--document", page]
    done = CliRunner().invoke(tables.main, list(map(str, words)), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert page.read_text("utf-8") == tables.DOCUMENT.read_text("utf-8")
