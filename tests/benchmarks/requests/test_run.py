"""The benchmark of whole requests, on a tiny model: what is asked, what is counted, what is written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmarks.requests import run
from lime_edge.runtime.decoding.kv_cache import Cache
from lime_edge.skills.interface import AnswerForm, Interface
from tests.support.runtime_models import exported, skill

ANSWERS = ["yes", "no"]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    rows = [
        {"prompt": f"Answer the question.\n\nIs it {word}?\nAnswer:", "answer": "yes"} for word in ("so", "not", "it")
    ]
    path = tmp_path / "test.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def test_a_request_is_asked_whole_and_bare(data: Path) -> None:
    found = run.requests_of("task", data, 2)
    assert len(found) == 2
    for one in found:
        assert one.full.startswith("Answer the question.")
        assert one.bare in one.full
        assert "Answer" not in one.bare


def test_every_side_answers_every_request(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("extend", "step"):  # the benchmark replaces them
        monkeypatch.setattr(Cache, name, getattr(Cache, name))
    new = skill(exported(), "new", interface=Interface(answers=AnswerForm("choices", ANSWERS)))
    target = tmp_path / "found.json"
    arguments = [exported(), "--task", "task", data, new, skill(exported(), "old"), "--threads", 1, "--base-tokens", 4]
    done = CliRunner().invoke(run.main, [*map(str, arguments), "--json", str(target)], catch_exceptions=False)
    assert done.exit_code == 0
    assert "task, 1 threads" in done.output
    document = json.loads(target.read_text("utf-8"))
    lines = {line["side"]: line for line in document["tasks"]["all"]}
    assert list(lines) == list(run.SIDES)
    assert lines["skill"]["time_of_skill"]["median"] == 1
    assert lines["base"]["tokens_written"] <= 4
    assert lines["plain"]["tokens_read"] < lines["before"]["tokens_read"] == lines["base"]["tokens_read"]
    assert lines["skill"]["steps"] <= lines["plain"]["steps"] <= lines["plain"]["tokens_written"]
    assert document["tasks"]["all"] == document["tasks"]["task"]
