"""`lime-edge learn` on a tiny checkpoint."""

from __future__ import annotations

from pathlib import Path

from lime_edge import read_skill
from tests.support.cli_models import data, fails, learned


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
