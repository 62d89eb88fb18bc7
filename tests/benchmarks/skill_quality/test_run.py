"""Runs of the skill benchmark on a tiny model: the choice of rates, the record, and the order of runs."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import pytest

from benchmarks.harness.result_lines import Lines
from benchmarks.skill_quality import page, run
from benchmarks.skill_quality.methods import METHODS
from tests.support.tiny_training import write_rows

pytestmark = [
    pytest.mark.usefixtures("float32"),
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning"),  # from PEFT
]


@pytest.mark.parametrize("method", ["base", "lime", "lora-1", "ia3"])
def test_a_run_of_the_skill_benchmark(
    method: str, shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "RATE_STEPS", 2)
    found = [{"prompt": f"say {i}", "answer": '{"a": "b"}'} for i in range(6)]
    for task in run.RATE_TASKS:
        for split in ("train", "valid", "test"):
            write_rows(tmp_path / "skills" / task / f"{split}.jsonl", found)
    budget = run.Budget(steps=2, batch=2, rows=3, max_length=100, tokens=4)
    rates = Lines(tmp_path / "rates.jsonl", (*run.KEYS, "rate"))
    bench = run.Bench(tmp_path, shared, budget, rates)
    (job,) = run.jobs(["request_to_json"], [method], [0], budget)
    record = bench.run(job)
    assert (record["metric"], record["rows_measured"]) == ("slot F1", 3)
    if method != "base":
        losses: dict[float, float] = defaultdict(lambda: 1.0)
        for line in rates.read():
            losses[line["rate"]] *= line["valid_loss"]
        assert len(rates.read()) == len(run.RATE_TASKS) * len(losses) == 4
        assert record["rate"] == min(losses, key=losses.__getitem__)
        assert record["bytes"] > record["smallest_bytes"] or method == "lime"
        assert bench.run(job)["loss"] == record["loss"]
    assert ("loss_4_bits" in record) == (method == "lime")
    made = page.blocks(page.grouped([{**job, **record}]), rates.read())
    assert "slot F1" in made["scores"]
    assert ("rates" in made) == (method != "base")


def test_the_most_telling_runs_come_first_and_none_is_left_out() -> None:
    budget = run.Budget(steps=2, batch=2, rows=3, max_length=100, tokens=4)
    jobs = list(run.jobs(run.TASKS, list(METHODS), [0], budget))
    assert {(job["task"], job["method"]) for job in jobs} == {(t, m) for t in run.TASKS for m in METHODS}
    assert len(jobs) == len(run.TASKS) * len(METHODS)
    first = jobs[: 2 * run.TELLING]
    assert {job["task"] for job in first} == set(run.TASKS[:2])
    assert {"lime", "lora-8", "lora-1", "ia3", "road"} <= {job["method"] for job in first}
