"""Training a checkpoint, from files to what skills are learned on, on a tiny model."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from lime_edge import Runtime, read_skill
from lime_edge.errors import ConfigError, DataError
from lime_edge.method.config import LimeConfig
from lime_edge.training import backbone, checkpoint
from lime_edge.training import train_adapter as training
from lime_edge.training.general_skill import general_skill
from lime_edge.training.plan import TrainingPlan
from lime_edge.training.train_adapter import train
from tests.support.tiny_training import backbone_dir, save, wrapped, write_rows
from tests.support.train_case import PLAN, ROUTING, dies_after, exported, run, trained


@pytest.fixture(autouse=True)
def float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same numbers on every machine, whether or not it multiplies bfloat16."""
    monkeypatch.setattr(backbone, "training_dtype", lambda: torch.float32)


def adapter(folder: Path) -> dict[str, Any]:
    return load_file(folder / "adapter_model.safetensors")


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


def test_training_learns_and_says_what_it_did(tmp_path: Path) -> None:
    output, figures = trained()
    before = run(tmp_path / "short", dataclasses.replace(PLAN, steps=1), valid=True)
    assert figures["eval_loss"] < 0.6 * before["eval_loss"]
    assert figures.keys() == {"train_loss", "eval_loss", "steps", "tokens_per_second", "dropped"}
    assert figures["steps"] == 20
    assert figures["tokens_per_second"] > 0
    config = checkpoint.read_config(output)
    assert config.backbone_digest == backbone.digest(backbone_dir())
    assert config.base_model_name_or_path == str(backbone_dir())
    assert config.routing == ROUTING


def test_a_run_that_was_cut_off_goes_on_as_if_it_had_not_been(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = dataclasses.replace(PLAN, steps=8, save_every=6)  # five steps are an epoch
    run(tmp_path / "whole", plan, balance_every=4)
    with monkeypatch.context() as patch:
        patch.setattr(training, "Collator", dies_after(7))
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "cut", plan, balance_every=4)
    assert not (tmp_path / "cut" / "adapter_model.safetensors").exists()
    for step, text in (("7", ""), ("8", '{"global_step": ')):  # as if it had been cut off while saving
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


def test_minutes_end_a_run_which_can_be_resumed(tmp_path: Path) -> None:
    figures = run(tmp_path / "out", dataclasses.replace(PLAN, minutes=1e-6))
    assert figures["steps"] == 1
    assert (tmp_path / "out" / "run" / "checkpoint-1").is_dir()
    assert run(tmp_path / "out", dataclasses.replace(PLAN, steps=2), resume=True)["steps"] == 2


def test_lines_where_there_is_no_terminal(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lime_edge.training.progress.LINE_EVERY", 5)
    plan = dataclasses.replace(PLAN, steps=6, batch=1, save_every=5)
    figures = run(tmp_path / "out", plan, valid=True)
    lines = [line.split(": ") for line in capfd.readouterr().err.splitlines() if line.startswith("step ")]
    # each step is evaluated once, the last one too
    assert [step for step, _ in lines] == ["step 5/6", "step 5", "step 6", "step 6/6"]
    assert re.fullmatch(r"loss [\d.]+, \d+ tokens/s", lines[0][1])
    assert lines[2][1] == f"validation loss {figures['eval_loss']:.4f}"


def test_long_rows_are_dropped_and_counted(tmp_path: Path) -> None:
    file = write_rows(tmp_path / "rows.jsonl", [{"prompt": "x" * n, "answer": "y"} for n in (1, 2, 3, 400)])
    figures = train([str(file)], str(backbone_dir()), tmp_path / "out", LimeConfig(routing=ROUTING), PLAN, 100)
    assert figures["dropped"] == 1
    assert "eval_loss" not in figures


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


def test_every_fault_of_a_plan_is_listed() -> None:
    wrong: dict[str, Any] = {
        "steps": 0,
        "batch": 1.5,
        "save_every": True,
        "seed": -1,
        "vector_rate": -1e-3,
        "shared_rate": float("nan"),
        "weight_decay": "no",
        "warmup": 1.5,
        "vector_scales": {"gain": -1.0, "gian": 2.0},
        "minutes": 0,
        "optimizer": "sgd",
    }
    with pytest.raises(ConfigError) as caught:
        TrainingPlan(**wrong)
    assert list(dict.fromkeys(fault.split()[0] for fault in caught.value.faults)) == list(wrong)
    assert "vector_scales has 'gian'; expected expert, gain, shift, rank, shared, gate" in caught.value.faults


def test_the_general_skill_of_a_checkpoint() -> None:
    output, _ = trained()
    skill = read_skill(output / "general.lime")
    assert (skill.manifest.name, skill.manifest.activation, skill.dtype) == ("general", "always", "F16")
    assert (len(skill.manifest.golden), skill.manifest.experts) == (2, 3)
    model, _, _ = checkpoint.open_checkpoint(output, torch.float32)
    for name, vector in checkpoint.get_vectors(model).items():
        np.testing.assert_allclose(skill.tensors[name], vector, rtol=1e-3, atol=1e-6)
    Runtime.load(exported(False)[0], threads=1).load_skill(skill.path, prove=True)


def test_the_general_skill_of_an_older_checkpoint(tmp_path: Path) -> None:
    save(wrapped(kinds=("expert", "shift", "rank")), tmp_path)
    skill = read_skill(general_skill(tmp_path))
    assert skill.path == tmp_path / "general.lime"
    assert skill.kinds == ("expert", "shift", "rank")
    assert skill.manifest.golden == []
    assert skill.manifest.backbone_name == "llama"
