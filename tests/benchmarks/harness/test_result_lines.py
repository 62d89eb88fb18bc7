"""Files of results: finished runs are kept, and a line cut off by a crash is run again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.harness.result_lines import Lines, run_missing


def test_what_is_there_is_not_run_again_and_a_torn_line_is(tmp_path: Path) -> None:
    lines = Lines(tmp_path / "lines.jsonl", ("task", "seed"))
    asked: list[int] = []

    def run(job: dict[str, Any]) -> dict[str, Any]:
        asked.append(job["seed"])
        return {"score": job["seed"] / 2}

    jobs = [{"task": "t", "seed": seed} for seed in range(3)]
    assert run_missing(lines, jobs[:2], run) == 2
    with lines.path.open("a") as file:
        file.write('{"task": "t", "seed": 2, "sco')  # as a crash leaves it
    assert run_missing(lines, jobs, run) == 1
    assert run_missing(lines, [{"task": "t", "seed": 3}], run, minutes=-1) == 0
    assert asked == [0, 1, 2]
    assert [(record["seed"], record["score"]) for record in lines.read()] == [(0, 0.0), (1, 0.5), (2, 1.0)]
