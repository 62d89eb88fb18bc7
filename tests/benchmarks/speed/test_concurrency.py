"""The benchmark of concurrent requests: all sides are measured with equal requests."""

from __future__ import annotations

import json
import random
import threading
from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmarks.speed.concurrency import Request, main, make_requests, run_load
from tests.support.runtime_models import exported, runtime, skill


def test_all_sides_are_measured(tmp_path: Path) -> None:
    path = tmp_path / "concurrency.json"
    skills = [str(skill(exported(), name)) for name in ("one", "two")]
    options = [
        "--concurrent",
        "1,3",
        "--requests",
        "4",
        "--tokens",
        "6",
        "--rounds",
        "1",
        "--read",
        "60",
        "--threads",
        "1",
    ]
    result = CliRunner().invoke(main, [str(exported()), *skills, *options, "--json", str(path)], catch_exceptions=False)
    assert result.exit_code == 0
    found = json.loads(path.read_text("utf-8"))
    for name in ("whole answers", "long answers", "long answers without drafts"):
        assert list(found[name]) == ["1", "3"]
        assert found[name]["1"]["against_one_at_a_time"]["median"] == 1
        assert found[name]["3"]["tokens_a_second"]["median"] > 0
        assert found[name]["3"]["tokens_a_cpu_second"]["median"] > 0
        assert list(found[name]["3"]["first_token_ms"]) == ["p50", "p95", "p99"]
    assert found["long answers"]["3"]["tokens_an_answer"] == 6
    (read,) = found["beside a read"]["1"]
    assert read["read_seconds"] > 0
    assert read["during_ms"]["highest"] > 0


def test_requests_take_the_skills_in_turn() -> None:
    made = make_requests(["a", "b"], 5, None, random.Random(0))
    assert [one.skill for one in made] == ["a", "b", "a", "b", "a"]
    assert len({one.prompt for one in made}) == 5


@pytest.mark.parametrize("clients", [1, 3])
def test_every_request_is_answered_once(clients: int) -> None:
    made, stop = runtime(exported(), "one"), threading.Event()
    made._text.eos_ids = frozenset()
    driver = threading.Thread(target=made.scheduler.run, args=(stop,))
    driver.start()
    try:
        requests = [Request("Hello", "one", 5) for _ in range(7)]
        load = run_load(made, requests, clients)
    finally:
        stop.set()
        made.scheduler.wake()
        driver.join()
    assert [sum(one.given) for one in requests] == [5] * 7
    assert (load.tokens, load.requests, len(load.first)) == (35, 7, 7)
