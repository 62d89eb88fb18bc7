"""Training of the rivals' adapters: it resumes, and does not train what is there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.requests import train_rivals
from benchmarks.skill_quality.methods import Peft
from lime_edge.training.learn_skill import SKILL_PLAN


def test_an_adapter_is_trained_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[bool] = []

    def fit(*_: Any, resume: bool) -> None:
        calls.append(resume)
        (tmp_path / "out" / "task.state" / "checkpoint-1").mkdir(parents=True, exist_ok=True)
        (tmp_path / "out" / "task.state" / "checkpoint-1" / "trainer_state.json").write_text("{}")
        if len(calls) == 1:
            raise KeyboardInterrupt

    def store(_: Any, model: object, folder: Path) -> None:
        (folder / "adapter_config.json").write_text("{}")

    monkeypatch.setattr(train_rivals, "fit", fit)
    monkeypatch.setattr(train_rivals, "Examples", lambda *_: None)
    monkeypatch.setattr(train_rivals, "pad_id", lambda _: 0)
    monkeypatch.setattr(Peft, "open", lambda *_: (None, None))
    monkeypatch.setattr(Peft, "store", store)
    data = tmp_path / "data"
    data.mkdir()
    (data / "train.jsonl").write_text('{"prompt": "a", "answer": "b"}\n')
    target = tmp_path / "out" / "task"
    with pytest.raises(KeyboardInterrupt):
        train_rivals.train(data, target, replace(SKILL_PLAN, steps=1))
    assert not target.exists()
    train_rivals.train(data, target, replace(SKILL_PLAN, steps=1))
    assert calls == [False, True]
    assert [path.name for path in target.parent.iterdir()] == ["task"]
    train_rivals.train(data, target, replace(SKILL_PLAN, steps=1))
    assert len(calls) == 2


def test_the_rate_is_the_one_that_was_chosen() -> None:
    from benchmarks.harness.result_lines import RESULTS, Lines

    lines = Lines(RESULTS / "skill-rates.jsonl", ("task", "method", "rate")).read()
    losses: dict[float, float] = {}
    for line in lines:
        if line["method"] == train_rivals.METHOD:
            losses[line["rate"]] = losses.get(line["rate"], 1.0) * line["valid_loss"]
    assert min(losses, key=losses.__getitem__) == train_rivals.RATE
