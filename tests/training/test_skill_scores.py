"""A skill is measured on bare requests, its rival, the base, on the whole prompts."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from lime_edge.evaluation.examples import Row, data_digest
from lime_edge.evaluation.instruction import Instruction
from lime_edge.evaluation.metrics import Score
from lime_edge.training.skill_scores import measure


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
