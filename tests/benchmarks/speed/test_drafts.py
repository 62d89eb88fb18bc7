"""The benchmark of drafts on a tiny model: its sides and what they count. No test depends on times."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner

from benchmarks.harness.rounds import read
from benchmarks.speed.drafts import main
from lime_edge.skills.interface import AnswerForm, Interface
from tests.support.runtime_models import exported, scratch, skill


def test_drafts_are_measured(tmp_path: Path) -> None:
    rows = [{"prompt": f"Is it {word}?", "answer": "yes"} for word in ("so", "not", "it")]
    data = tmp_path / "test.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    model = exported(precision="fp32")
    chosen = skill(model, "chosen", interface=Interface(answers=AnswerForm("choices", ["yes", "no"])))
    path = tmp_path / "drafts.json"
    arguments = [model, "--task", "task", data, chosen, "--text", "free", data, "--rows", 2, "--tokens", 12]
    arguments += ["--model", scratch() / "llama", "--json", path]
    done = CliRunner().invoke(main, [*map(str, arguments)], catch_exceptions=False)
    assert done.exit_code == 0
    task, free = read(path)["groups"]
    assert [figure.name for figure in task.figures] == ["untouched", "one a step", "drafts", "drafts and form"]
    assert [figure.name for figure in free.figures] == ["untouched", "one a step", "drafts"]
    assert list(task["drafts"].ratios) == ["untouched"]
    sides = free.what["sides"]
    assert sides["untouched"]["times_untouched"] == 1
    assert sides["one a step"]["drafted"] == 0
    assert 0 <= sides["drafts"]["accepted"] <= sides["drafts"]["drafted"]
    assert sides["drafts"]["tokens"] == sides["one a step"]["tokens"] == sides["untouched"]["tokens"]
    assert task.what["sides"]["drafts and form"]["answers_without_steps"] == 2


def test_a_task_or_a_text_is_needed() -> None:
    done = CliRunner().invoke(main, [str(exported())])
    assert done.exit_code == 2
    assert "expected a --task or a --text" in done.output
