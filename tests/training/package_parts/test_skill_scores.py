"""A skill is measured on bare requests, its rival, the base, on whole prompts; the scores decide what is learned."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from lime_edge.evaluation.examples import Row, data_digest
from lime_edge.evaluation.instruction import Instruction
from lime_edge.evaluation.metrics import Score
from lime_edge.skills.interface import AnswerForm
from lime_edge.training import learn_skill as learning
from lime_edge.training.learn_skill import Recipe, learn
from lime_edge.training.package_parts.skill_scores import SkillScores, measure
from tests.support.tiny_training import tasks, write_rows
from tests.support.train_case import PLAN, dies_after, made, trained

pytestmark = pytest.mark.usefixtures("float32")


class FakePredictor:
    """Answers with the prompt; records the prompts, and whether the skill was on."""

    def __init__(self) -> None:
        self.on, self.asked = True, list[tuple[bool, list[str]]]()
        self.model = SimpleNamespace(disable_adapter=self.off)

    @contextmanager
    def off(self) -> Any:
        self.on = False
        yield
        self.on = True

    def answers(self, rows: Sequence[Row], label: str) -> list[str]:
        self.asked.append((self.on, [row.messages[0]["content"] for row in rows]))
        return self.asked[-1][1]


def row(prompt: str, answer: str, *choices: str) -> Row:
    return Row(({"role": "user", "content": prompt},), answer, choices)


@pytest.mark.parametrize("known", [None, Score(2, 0.25, 0.5)])
def test_the_base_is_given_all(known: Score | None) -> None:
    predictor: Any = FakePredictor()
    rows = [row("Say: a", "a"), row("Say: b", "c")]
    found = measure(predictor, rows, Instruction("Say: "), known)
    expected = [(True, ["a", "b"]), (False, ["Say: a", "Say: b"])]
    assert predictor.asked == (expected if known is None else expected[:1])
    assert (found.skill, found.base) == (Score(2, 0.5, 0.5), known or Score(2, 0, 1 / 3))
    assert found.values == (0.5, found.base.f1)
    metrics = [(metric["name"], metric["skill"], metric["base"]) for metric in found.metrics()]
    assert metrics == [("exact match", 0.5, found.base.exact), ("f1", 0.5, round(found.base.f1, 4))]
    assert {metric["dataset"] for metric in found.metrics()} == {data_digest(rows)}


def test_accuracy_decides_where_all_rows_have_choices() -> None:
    predictor: Any = FakePredictor()
    found = measure(predictor, [row("a", "a", "a", "b")], Instruction(), Score(1, 0.0, 1.0))
    assert [metric["name"] for metric in found.metrics()] == ["accuracy"]
    assert found.values == (1.0, 0.0)


def scored(monkeypatch: pytest.MonkeyPatch, carried: float, kept: float, base: float) -> list[bool]:
    """Replace the measurement; returns a list that records whether each measured skill did without the instruction."""
    asked: list[bool] = []

    def fake(_: object, rows: list[Row], cut: Instruction, known: Score | None) -> SkillScores:
        asked.append(bool(cut))
        assert (known is None) == (len(asked) == 1)  # the base is measured once
        value = carried if cut else kept
        return SkillScores(rows, Score(len(rows), value, value), known or Score(len(rows), base, base))

    monkeypatch.setattr(learning, "measure", fake)
    return asked


@pytest.mark.parametrize(
    ("carried", "kept", "base", "runs", "state"),
    [
        (0.6, 0.9, 0.5, 1, "carried"),
        (0.5, 0.9, 0.5, 2, "kept"),
        (0.2, 0.1, 0.5, 2, "carried"),
        (0.2, 0.2, 0.5, 2, "carried"),
    ],
)
def test_a_task_that_needs_its_instruction_gets_it(
    carried: float,
    kept: float,
    base: float,
    runs: int,
    state: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    asked = scored(monkeypatch, carried, kept, base)
    given = (tasks() / "skill", trained()[0], tmp_path / "lime.lime")
    skill, figures = learn(*given, Recipe("lime"), PLAN)
    assert asked == [True, False][:runs]
    assert made(skill)["instruction"] == state
    assert skill.manifest.interface.prefix == ("which " if state == "kept" else "")
    assert skill.manifest.interface.answers == AnswerForm("choices", ["lime", "no", "yes"])
    assert skill.manifest.interface.examples == ("0", "1", "2")
    (metric,) = skill.manifest.metrics
    assert (metric["skill"], metric["base"]) == (kept if state == "kept" else carried, base)
    compared = {"score_carried": carried, "score_kept": kept, "score_base": base}
    assert {name: figures[name] for name in compared if name in figures} == (compared if runs == 2 else {})
    assert ("learning again with it" in capsys.readouterr().err) == (runs == 2)
    alone = learn(*given, Recipe("lime", keep_instruction=state == "kept", metric_rows=0), PLAN)[0]
    for name, vector in alone.tensors.items():
        np.testing.assert_array_equal(skill.tensors[name], vector)
    assert [golden["prompt_ids"] for golden in skill.manifest.golden] == [
        golden["prompt_ids"] for golden in alone.manifest.golden
    ]


def test_without_a_measurement_the_instruction_is_carried(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    skill, _ = learn(tasks() / "skill", trained()[0], tmp_path / "lime.lime", Recipe("lime", metric_rows=0), PLAN)
    assert made(skill)["instruction"] == "carried"
    said = capsys.readouterr().err
    assert "the instruction that all prompts share is cut: the skill learns to do without: 'which ' ... ''" in said
    assert "not compared with the base" in said


def test_the_second_run_can_be_resumed_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = dataclasses.replace(PLAN, steps=4, save_every=1)
    given = (tasks() / "skill", trained()[0])
    scored(monkeypatch, 0.1, 0.9, 0.5)
    whole, _ = learn(*given, tmp_path / "whole.lime", Recipe("lime"), plan)
    with monkeypatch.context() as patch:
        patch.setattr(learning, "Collator", dies_after(6))
        scored(patch, 0.1, 0.9, 0.5)
        with pytest.raises(KeyboardInterrupt):
            learn(*given, tmp_path / "cut.lime", Recipe("lime"), plan)
    scored(monkeypatch, 0.1, 0.9, 0.5)
    cut, _ = learn(*given, tmp_path / "cut.lime", Recipe("lime"), plan, resume=True)
    assert cut.digest == whole.digest
    assert not list(tmp_path.glob(".*"))


def test_an_instruction_that_cannot_be_kept_is_carried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    scored(monkeypatch, 0.1, 0.9, 0.5)
    rows = [{"prompt": f"Please do as I say: {'x' * 60} {number}", "answer": "a"} for number in range(10)]
    file = write_rows(tmp_path / "rows.jsonl", rows)
    skill, _ = learn(file, trained()[0], tmp_path / "a.lime", Recipe("a", max_length=60), PLAN)
    assert made(skill)["instruction"] == "carried"
    assert "the instruction cannot be kept: " in capsys.readouterr().err
