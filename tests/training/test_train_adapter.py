"""Training a checkpoint, from JSONL files to the shared adapter, on a tiny model."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from lime_edge.errors import ConfigError, DataError
from lime_edge.method.config import LimeConfig
from lime_edge.training import backbone, checkpoint
from lime_edge.training import train_adapter as training
from lime_edge.training.train_adapter import train
from tests.support.tiny_training import backbone_dir, write_rows
from tests.support.train_case import PLAN, ROUTING, dies_after, run, trained

COUNTS = ("rows", "dropped", "duplicates", "overlap")
pytestmark = pytest.mark.usefixtures("float32")


def adapter(folder: Path) -> dict[str, Any]:
    return load_file(folder / "adapter_model.safetensors")


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


def test_training_learns_and_says_what_it_did(tmp_path: Path) -> None:
    output, figures = trained()
    before = run(tmp_path / "short", dataclasses.replace(PLAN, steps=1), valid=True)
    assert figures["eval_loss"] < 0.6 * before["eval_loss"]
    assert figures.keys() == {"train_loss", "eval_loss", "steps", "tokens_per_second", *COUNTS}
    assert figures["steps"] == 20
    assert figures["tokens_per_second"] > 0
    config = checkpoint.read_config(output)
    assert config.backbone_digest == backbone.digest(backbone_dir())
    assert config.base_model_name_or_path == str(backbone_dir())
    assert config.routing == ROUTING


def test_a_run_that_was_cut_off_goes_on_as_if_it_had_not_been(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = dataclasses.replace(PLAN, steps=8, save_every=6)  # an epoch has five steps
    run(tmp_path / "whole", plan, balance_every=4)
    with monkeypatch.context() as patch:
        patch.setattr(training, "Collator", dies_after(7))
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "cut", plan, balance_every=4)
    assert not (tmp_path / "cut" / "adapter_model.safetensors").exists()
    for step, text in (("7", ""), ("8", '{"global_step": ')):  # as if it had been killed while saving
        (tmp_path / "cut" / "run" / f"checkpoint-{step}").mkdir()
        (tmp_path / "cut" / "run" / f"checkpoint-{step}" / "trainer_state.json").write_text(text)
    figures = run(tmp_path / "cut", plan, resume=True, balance_every=4)
    assert figures["steps"] == 8
    assert same(adapter(tmp_path / "cut"), adapter(tmp_path / "whole"))


def test_the_same_seed_gives_the_same_adapter_and_another_another(tmp_path: Path) -> None:
    plan = dataclasses.replace(PLAN, steps=1)
    for name, seed in (("one", 0), ("two", 0), ("three", 1)):
        torch.manual_seed(hash(name) % 1000)
        run(tmp_path / name, dataclasses.replace(plan, seed=seed))
    assert same(adapter(tmp_path / "one"), adapter(tmp_path / "two"))
    assert not same(adapter(tmp_path / "one"), adapter(tmp_path / "three"))


def test_long_rows_are_dropped_and_counted(tmp_path: Path) -> None:
    file = write_rows(tmp_path / "rows.jsonl", [{"prompt": "x" * n, "answer": "y"} for n in (1, 2, 3, 400)])
    figures = train([str(file)], str(backbone_dir()), tmp_path / "out", LimeConfig(routing=ROUTING), PLAN, 100)
    assert [figures[name] for name in COUNTS] == [4, 1, 0, 0]
    assert "eval_loss" not in figures


def test_no_prompt_is_trained_on_and_validated_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_rows(tmp_path / "a" / "train.jsonl", [{"prompt": f"p{n}", "answer": "y"} for n in (1, 1, 2, 3, 4)])
    write_rows(tmp_path / "a" / "valid.jsonl", [{"prompt": "P3 ", "answer": "y"}])
    write_rows(tmp_path / "b" / "train.jsonl", [{"prompt": "p5", "answer": "y"}])  # a task without validation rows
    given = [str(tmp_path / "a"), str(tmp_path / "b")]
    figures = train(given, str(backbone_dir()), tmp_path / "out", LimeConfig(routing=ROUTING), PLAN, 100)
    assert [figures[name] for name in COUNTS] == [6, 0, 1, 1]
    assert (
        f"{tmp_path / 'a' / 'train.jsonl'} line 4 = {tmp_path / 'a' / 'valid.jsonl'} line 1" in capsys.readouterr().err
    )


def test_what_cannot_be_trained_is_refused_before_it_begins(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(ConfigError, match="not empty"):
        run(tmp_path / "full")
    with pytest.raises(ConfigError, match="nothing can be written"):
        run(tmp_path / "full" / "file")
    with pytest.raises(DataError, match="nothing to resume"):
        run(tmp_path / "new", resume=True)
    with pytest.raises(ConfigError, match="max_length is 0"):
        train([], str(backbone_dir()), tmp_path / "new", LimeConfig(), PLAN, 0)
    with pytest.raises(DataError, match=r"a\.jsonl[^$]*b\.jsonl"):
        train(["a.jsonl", "b.jsonl"], str(backbone_dir()), tmp_path / "new2", LimeConfig(), PLAN)
