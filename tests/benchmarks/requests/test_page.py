"""The page of requests is made from result files, and says whether a goal was met."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from benchmarks.harness.page_blocks import held
from benchmarks.harness.result_lines import RESULTS
from benchmarks.requests import page


def _line(side: str, speed: float, f1: float, parse: float | None = 1.0) -> dict[str, Any]:
    spread = dict.fromkeys(("median", "low", "high", "sure_low", "sure_high"), 1 / speed)
    counts = {"tokens_read": 3.0, "tokens_written": 2.0, "steps": 1.0, "accepted": None}
    known = {"side": side, "ms": spread, "p95": 2.0, "requests_per_second": speed, "time_of_skill": spread}
    return {**known, **counts, "exact": f1, "f1": f1, "parse": parse}


def _document(rival: float) -> dict[str, Any]:
    lines = [_line("before", 1, 0.5), _line("skill", 9, 0.7), _line("llama.cpp, LoRA", rival, 0.705)]
    return {
        "what": "requests",
        "threads": 2,
        "notes": {"llama.cpp, LoRA": "a version"},
        "streams": {"mixed": {"all": lines, "json": lines}, "alone": {"all": lines, "json": lines}},
    }


@pytest.mark.parametrize(
    ("rival", "mixed", "alone"), [(2.0, "met", "met"), (4.0, "missed", "met"), (8, "missed", "missed")]
)
def test_goals_are_met_or_missed(rival: float, mixed: str, alone: str) -> None:
    made = page.blocks([_document(rival)])
    first, second, third = made["goals"].splitlines()[4:]
    assert f"{9 / rival:.2f} (llama.cpp, LoRA)" in first
    assert mixed in first
    assert alone in second
    assert third == "| F1, json | at most 1 point below the best | 70.0, 70.5 (llama.cpp, LoRA) | met |"
    assert made["mixed"].startswith("2 threads\n\n| side |")
    assert made["alone"].startswith("json, 2 threads\n")
    assert "| llama.cpp, LoRA | a version |" in made["engines"]


def test_the_page_holds_every_block_and_is_current(tmp_path: Path) -> None:
    files = sorted((RESULTS / "requests").glob("*.json"))
    copy = tmp_path / "requests.md"
    copy.write_text(page.DOCUMENT.read_text("utf-8"), "utf-8")
    done = CliRunner().invoke(page.main, [*map(str, files), "--document", str(copy)], catch_exceptions=False)
    assert done.exit_code == 0
    assert held(copy.read_text("utf-8")) == held(page.DOCUMENT.read_text("utf-8"))
    written = page.blocks([json.loads(path.read_text("utf-8")) for path in files])
    assert written.keys() <= held(page.DOCUMENT.read_text("utf-8")).keys()
