"""Measuring a skill: rows are batched, answers return to the order of the rows, and samples are repeatable."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lime_edge.errors import DataError
from lime_edge.evaluation.evaluate import Result, answerable, examples, measure, sample
from lime_edge.evaluation.examples import Row
from lime_edge.evaluation.instruction import Instruction


class FakeRuntime:
    """Answers a prompt with its own text, and a choice with the first one; records the size of every call."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, int, str | None]] = []
        self.asked: list[Any] = []

    def skills(self) -> list[Any]:
        return [SimpleNamespace(name="odd", digest="d" * 64)]

    def generate(self, prompts: Sequence[Any], skill: str | None, *, max_new_tokens: int, temperature: float) -> Any:
        assert (max_new_tokens, temperature) == (7, 0.0)
        self.calls.append(("generate", len(prompts), skill))
        self.asked += prompts
        return [SimpleNamespace(text=p if isinstance(p, str) else p[-1]["content"]) for p in prompts]

    def choose(self, prompts: Sequence[Any], choices: Sequence[str], skill: str | None, *, best_only: bool) -> Any:
        assert best_only
        self.calls.append(("choose", len(prompts), skill))
        return [SimpleNamespace(label=choices[0]) for _ in prompts]


def row(prompt: str, answer: str, *choices: str) -> Row:
    return Row(({"role": "user", "content": prompt},), answer, choices)


def test_rows_run_in_batches_and_answers_keep_the_order_of_the_rows() -> None:
    runtime: Any = FakeRuntime()
    free = [row("x" * length, "x" * length) for length in range(40, 0, -1)]
    rows = [row("?", "yes", "yes", "no"), *free, row("?", "b", "a", "b"), row("?", "no", "yes", "no")]
    result = measure(runtime, rows, "odd", 7)
    assert result.answers == ["yes", *(one.answer for one in free), "a", "yes"]
    assert (result.score.rows, result.score.exact) == (43, 41 / 43)
    assert (result.skill, result.digest) == ("odd", "d" * 64)
    expected = [("choose", 2, "odd"), ("generate", 32, "odd"), ("generate", 8, "odd"), ("choose", 1, "odd")]
    assert runtime.calls == expected


def test_the_base_model_has_no_digest() -> None:
    runtime: Any = FakeRuntime()
    result = measure(runtime, [row("a", "b")], None, 7)
    assert (result.skill, result.digest, result.score.exact) == (None, None, 0)


def test_a_skill_is_asked_plain_requests_without_the_instruction() -> None:
    runtime: Any = FakeRuntime()
    turns = Row((*row("Say: one", "").messages, {"role": "assistant", "content": "1"}, *row("two", "").messages), "2")
    rows = [row("Say: a", "a"), row("bare", "bare"), turns]
    cut = measure(runtime, rows, "odd", 7, cut=Instruction("Say: "))
    assert runtime.asked == ["bare", "a", list(turns.messages)]
    assert (cut.cut, cut.answers) == (True, ["a", "bare", "two"])
    runtime.asked.clear()
    plain = measure(runtime, rows[:2], "odd", 7, cut=Instruction())
    assert (runtime.asked, plain.cut) == (["bare", "Say: a"], False)
    runtime.asked.clear()
    assert not measure(runtime, rows[:2], None, 7).cut
    assert runtime.asked == [list(rows[1].messages), list(rows[0].messages)]


def test_a_sample_is_the_same_every_time(tmp_path: Path) -> None:
    lines = [json.dumps({"prompt": str(number), "answer": "a"}) for number in range(50)]
    (tmp_path / "test.jsonl").write_text("\n".join(lines), "utf-8")
    every = examples(tmp_path)
    assert len(every) == 50
    assert sample(every, None) == every
    assert sample(every, 10) == sample(every, 10) != every[:10]
    assert sorted(one.messages[0]["content"] for one in sample(every, 99)) == sorted(map(str, range(50)))


def test_partial_results_are_on_the_rows_answered_so_far() -> None:
    runtime: Any = FakeRuntime()
    kept: list[Result] = []
    rows = [*(row("x" * length, "x" * length) for length in range(40, 0, -1)), row("?", "b", "a", "b")]
    result = measure(runtime, rows, "odd", 7, kept.append)
    assert [one.score.rows for one in kept] == [32, 40, 41]
    assert kept[0].answers == ["x" * length for length in range(32, 0, -1)]
    assert kept[-1].score == result.score


def test_rows_that_cannot_be_answered_are_refused_or_left_out() -> None:
    rows = [row("a", "a"), row("b", "b")]
    assert answerable(rows, {}, False) == rows
    assert answerable(rows, {1: "rows.csv line 3: too long"}, True) == rows[:1]
    with pytest.raises(DataError, match=r"1 of 2 rows [^$]*--skip-long[^$]*rows\.csv line 3: too long"):
        answerable(rows, {1: "rows.csv line 3: too long"}, False)
    with pytest.raises(DataError, match="2 of 2 rows"):
        answerable(rows, dict.fromkeys(range(2), "too long"), True)
