"""`lime-edge train` on a tiny model."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from lime_edge.training import train_adapter
from tests.support.cli_models import TRAIN, backbone, data, facts, fails, lime, trained


def test_train() -> None:
    checkpoint, document = trained()
    assert (checkpoint / "adapter_model.safetensors").is_file()
    assert document["figures"]["steps"] == 2
    assert document["figures"]["dropped"] == 0
    assert set(document["skills"]) == {"general.lime"}
    stderr = fails("train", data(), "-m", backbone(), "-o", checkpoint)
    assert "--resume" in stderr


def test_train_resumes(tmp_path: Path) -> None:
    shutil.copytree(trained()[0], tmp_path / "checkpoint")
    again = ("train", data(), "-m", backbone(), "-o", tmp_path / "checkpoint", "--steps", "3", *TRAIN)
    assert facts(*again, "--resume")["figures"]["steps"] == 3


def test_train_names_every_missing_file(tmp_path: Path) -> None:
    stderr = fails("train", "no.jsonl", "nor.jsonl", "-m", backbone(), "-o", tmp_path / "new")
    assert "no.jsonl" in stderr
    assert "nor.jsonl" in stderr


def test_an_interrupted_run_names_the_option_that_continues_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(train_adapter, "train", interrupted)
    command = ("train", data(), "-m", backbone(), "-o", tmp_path)
    assert "--resume" not in lime(*command).stderr  # nothing was saved that a run could continue from
    (tmp_path / "run" / "checkpoint-1").mkdir(parents=True)
    result = lime(*command)
    assert (result.exit_code, "--resume" in result.stderr) == (130, True)
