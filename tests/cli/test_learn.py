"""`lime-edge learn` on a tiny checkpoint."""

from __future__ import annotations

from pathlib import Path

import pytest

from lime_edge import read_skill
from lime_edge.skills.interface import AnswerForm
from lime_edge.training import learn_skill
from tests.support.cli_models import data, facts, fails, learned, lime, trained, write_rows


def test_learn() -> None:
    path, document = learned()
    skill = read_skill(path)
    assert document["skill"]["digest"] == skill.digest
    assert document["figures"]["steps"] == 2
    assert skill.manifest.author == "me"
    assert [(metric["name"], metric["rows"]) for metric in skill.manifest.metrics] == [("accuracy", 4)]


def test_learn_checks_its_words_before_it_trains(tmp_path: Path) -> None:
    stderr = fails("learn", "no.jsonl", "-c", tmp_path, "--name", "My Skill", "--version", "1", "--license", "?")
    assert all(word in stderr for word in ("name is 'My Skill'", "version is '1'", "license is '?'"))


def test_learn_wants_a_checkpoint(tmp_path: Path) -> None:
    stderr = fails("learn", data(), "-c", tmp_path, "--name", "x", "-o", tmp_path / "x.lime")
    assert "adapter_config.json" in stderr


def test_learn_says_what_it_measured_and_what_it_left_out(tmp_path: Path) -> None:
    rows = [{"prompt": f"Say {n}", "answer": "x"} for n in range(20)]
    file = write_rows(tmp_path / "rows.jsonl", [*rows, rows[0], {"prompt": "x" * 600, "answer": "x"}])
    command = ("learn", file, "-c", trained()[0], "--name", "x", "-o", tmp_path / "x.lime", "--steps", "1")
    valid = write_rows(tmp_path / "valid.jsonl", [{"prompt": "say  3", "answer": "x"}])
    for settings, said in (
        (("--metric-rows", "0"), "skill and base were not measured"),
        (("--valid", valid), "skill and base were measured on 1 rows whose prompts were not used for training"),
    ):
        result = lime(*command, *settings)
        assert said in result.stdout
        assert "rows left out, too long" in result.stdout
        assert "1 of 2" in result.stderr  # of 22, or of 21 without the row that is measured on
    assert f"{file} line 4 = {valid} line 1" in result.stderr


def test_learn_says_what_became_of_the_instruction_and_the_draft_table(tmp_path: Path) -> None:
    rows = [{"prompt": f"Say {n}", "answer": "the answer is it"} for n in range(20)]
    file = write_rows(tmp_path / "rows.jsonl", rows)
    answers = tmp_path / "answers.json"
    answers.write_text('{"kind": "regex", "value": "[a-z ]+"}', "utf-8")
    command = ("learn", file, "-c", trained()[0], "--name", "x", "-o", tmp_path / "x.lime", "--steps", "1")
    result = lime(*command, "--metric-rows", "0", "--answers", answers)
    assert "carried by the skill: a request is the bare text" in result.stdout
    assert "entries" in result.stdout
    assert "the instruction that all prompts share is cut" in result.stderr
    manifest = read_skill(tmp_path / "x.lime").manifest
    assert manifest.interface.answers == AnswerForm("regex", "[a-z ]+")
    assert manifest.draft is not None
    result = lime(*command, "--metric-rows", "0", "--keep-instruction", "--no-draft")
    assert "kept in the interface: a request is the bare text" in result.stdout
    manifest = read_skill(tmp_path / "x.lime").manifest
    assert (manifest.interface.prefix, manifest.draft) == ("Say ", None)
    found = facts(*command, "--metric-rows", "2")["figures"]
    assert {"score_carried", "score_kept", "score_base"} <= found.keys()  # one step teaches nothing
    answers.write_text('{"kind": "grammar", "value": "x"}', "utf-8")
    assert "answers.kind is 'grammar'" in fails(*command, "--answers", answers)


def test_learn_that_was_interrupted_says_how_to_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(learn_skill, "learn", interrupted)
    command = ("learn", data(), "-c", trained()[0], "--name", "x", "-o", tmp_path / "x.lime")
    assert "--resume" not in lime(*command).stderr  # nothing was saved that a run could continue from
    (tmp_path / ".x.lime.run" / "checkpoint-1").mkdir(parents=True)
    result = lime(*command)
    assert (result.exit_code, "run the same command with --resume" in result.stderr) == (130, True)
