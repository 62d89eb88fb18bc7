"""The benchmark of whole requests, on a tiny model: what is asked, what is counted, what is written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from benchmarks.requests import run, sides
from benchmarks.requests.data import Request
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


def test_every_side_answers_every_request(data: Path, tmp_path: Path) -> None:
    new = skill(exported(), "new", interface=Interface(answers=AnswerForm("choices", ANSWERS)))
    target = tmp_path / "found.json"
    arguments = [exported(), "--task", "task", data, new, skill(exported(), "old"), "--threads", 1, "--base-tokens", 4]
    for stream in run.STREAMS:
        arguments += ["--stream", stream]
    arguments += ["--backbone", exported(), "--json", target]
    done = CliRunner().invoke(run.main, [*map(str, arguments)], catch_exceptions=False)
    assert done.exit_code == 0
    assert "alone, task" in done.output
    document = json.loads(target.read_text("utf-8"))
    assert list(document["streams"]) == list(run.STREAMS)
    for found in document["streams"].values():
        lines = {line["side"]: line for line in found["all"]}
        assert list(lines) == list(sides.OURS)
        assert lines["skill"]["time_of_skill"]["median"] == 1
        assert lines["skill"]["parse"] == 1
        assert lines["base"]["tokens_written"] <= 4
        assert lines["plain"]["tokens_read"] < lines["before"]["tokens_read"] == lines["base"]["tokens_read"]
        assert lines["base"]["steps"] == lines["base"]["tokens_written"] - 1  # one token a step
        assert found["all"] == found["task"]


def test_a_stream_is_mixed_or_one_task_after_the_other() -> None:
    requests = [Request(task, f"{number}", "", "") for task in ("b", "a") for number in range(9)]
    assert [one.task for one in run.streamed("alone", requests)] == ["a"] * 9 + ["b"] * 9
    mixed = run.streamed("mixed", requests)
    assert sorted(mixed, key=repr) == sorted(requests, key=repr)
    assert [one.task for one in mixed] not in (["a"] * 9 + ["b"] * 9, ["b"] * 9 + ["a"] * 9)


def test_every_side_gets_every_request_once_and_in_changing_order() -> None:
    requests = [Request("a", str(number), "", "") for number in range(6)]
    asked: list[tuple[str, str, bool]] = []

    def side(name: str) -> sides.Ask:
        def ask(request: Request, one_cache: bool) -> Any:
            asked.append((name, request.full, one_cache))
            return sides.Answered(request, 1.0, "", 1, 1, 0, 0, 0)

        return ask

    names = [name for name, _ in run.answer({"one": side("one"), "two": side("two")}, requests, True)]
    assert len(names) == 12
    assert sorted(asked) == sorted((name, str(number), True) for number in range(6) for name in ("one", "two"))
    assert len(set(zip(names[::2], names[1::2], strict=True))) == 2
