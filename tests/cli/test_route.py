"""`lime-edge route`, `run --skill auto`, `--receipt` and `lime-edge receipt`, from a checkpoint to a choice."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from lime_edge import read_skill
from tests.support.cli_models import data, facts, fails, lime, trained, write_rows


@pytest.fixture(scope="module")
def routed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with statistics, and beside it a model exported from it with a skill that has centroids."""
    folder = tmp_path_factory.mktemp("routed")
    checkpoint = shutil.copytree(trained()[0], folder / "checkpoint")
    words = ["red", "cat", "run", "one", "Monday", "law", "grep", "song", "tea", "sea"]
    files = [
        write_rows(folder / f"{word}.jsonl", [{"prompt": f"{word} {n}", "answer": "x"} for n in range(12)])
        for word in words
    ]
    document = facts("route", *files, "-c", checkpoint)
    assert document["layer"] == 1
    assert 8 < document["none"] <= 32
    facts("export", checkpoint, "-o", folder / "model", "--precision", "fp32")
    return folder


def test_a_skill_gets_centroids_and_is_chosen(routed: Path, skill: Path, tmp_path: Path) -> None:
    model, checkpoint = routed / "model", routed / "checkpoint"
    assert "there is no skill to choose from" in fails("run", model, "Is 3 even?", "--skill", "auto")
    (model / "skills").mkdir()
    made = model / "skills" / "odd.lime"
    document = facts("route", data(), "-c", checkpoint, "--skill", skill, "-o", made, "--version", "9.0.0")
    found = read_skill(made)
    assert (document["digest"], document["centroids"]) == (found.digest, 2)
    assert found.manifest.version == "9.0.0"
    receipt = tmp_path / "receipt.json"
    short = ("--timings", "--max-new-tokens", "4")
    result = lime("run", model, "Is 3 even?", "--skill", "auto", *short, "--receipt", receipt)
    assert result.exit_code == 0
    written = json.loads(receipt.read_text("utf-8"))
    assert written["route"]["probabilities"].keys() == {"odd"}
    assert written["route"]["why"] in result.stderr
    checked = facts("receipt", receipt, "--model", model)
    assert checked["confirmed"]
    written["graph"] = "0" * 64
    receipt.write_text(json.dumps(written), "utf-8")
    assert lime("receipt", receipt, "--model", model).exit_code == 1
    assert facts("eval", model, data(), "--skill", "auto", "--max-new-tokens", "4")["results"][1]["skill"] == "auto"


def test_what_does_not_fit_together(routed: Path, skill: Path, tmp_path: Path) -> None:
    checkpoint = routed / "checkpoint"
    assert "give --skill, too" in fails("route", data(), "-c", checkpoint, "-o", tmp_path / "a.lime")
    assert "2 files or folders are given" in fails("route", data(), data(), "-c", checkpoint, "--skill", skill)
    plain = tmp_path / "model"
    facts("export", trained()[0], "-o", plain, "--precision", "fp32")
    (plain / "skills").mkdir()
    shutil.copy(skill, plain / "skills" / "odd.lime")
    assert "exported without statistics" in fails("run", plain, "Hi", "--skill", "auto")
