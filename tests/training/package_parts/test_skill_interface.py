"""What a package says of its requests and answers, from the rows that it was learned from."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from lime_edge.errors import DataError
from lime_edge.evaluation.examples import Row
from lime_edge.evaluation.instruction import Instruction
from lime_edge.skills.interface import AnswerForm, Interface
from lime_edge.training import learn_skill as learning
from lime_edge.training.dataset import chat_of
from lime_edge.training.learn_skill import Recipe, learn
from lime_edge.training.package_parts.skill_interface import draft_table, interface_of
from tests.support.tiny_training import tasks, tokenizer, write_rows
from tests.support.train_case import PLAN, trained

pytestmark = pytest.mark.usefixtures("float32")


def row(prompt: str, answer: str = "yes", choices: tuple[str, ...] = ()) -> Row:
    return Row(({"role": "user", "content": prompt},), answer, choices)


def test_the_interface_has_the_kept_ends_and_typical_requests() -> None:
    rows = [row(text) for text in ("three", "a", "bb", "x" * 201, "a", "four")]
    found = interface_of(rows, Instruction("Say: ", "\nNow:"), system="be brief")
    assert found == Interface(system="be brief", prefix="Say: ", suffix="\nNow:", examples=("bb", "four", "three"))


def test_choices_that_all_rows_share_become_the_form_of_the_answers() -> None:
    rows = [row("a", "yes", ("yes", "no")), row("b", "no", ("no", "yes"))]
    assert interface_of(rows, Instruction()).answers == AnswerForm("choices", ["yes", "no"])
    given = AnswerForm("regex", "yes|no")
    assert interface_of(rows, Instruction(), given).answers == given
    for other in (row("c"), row("c", "yes", ("yes", "maybe"))):
        assert interface_of([*rows, other], Instruction()).answers == AnswerForm()
    long: Any = ("x" * 1001, "no")
    assert interface_of([row("a", "no", long)], Instruction()).answers == AnswerForm()


def test_examples_are_requests_of_typical_length() -> None:
    rows = [row("x" * length) for length in (1, 1, 2, 20, 21, 22, 23, 150)]
    assert [len(text) for text in interface_of(rows, Instruction()).examples] == [20, 21, 22]


def test_conversations_give_no_examples() -> None:
    turns = (*row("one").messages, {"role": "assistant", "content": "1"}, *row("two").messages)
    assert interface_of([row("one"), Row(turns, "2")], Instruction()).examples == ()


def test_the_draft_table_holds_what_three_different_rows_share() -> None:
    answers = ["find . -name a", "find . -name b", "find . -type d"]
    three = [row(str(n), answer) for n, answer in enumerate(answers)]
    table = draft_table(tokenizer(), three)
    assert table is not None
    ids = chat_of(tokenizer()).text("find . -")
    assert [table.next(ids[:end])[0] for end in range(1, len(ids))] == ids[1:]  # type: ignore[index]
    rare = chat_of(tokenizer()).text("find . -name")
    assert table.next(rare[: len(ids)]) is None or table.next(rare[: len(ids)])[0] not in rare[len(ids) :]  # type: ignore[index]
    assert draft_table(tokenizer(), three[:2]) is None
    assert draft_table(tokenizer(), [three[0]] * 5) is None  # one row, however often it stands there


def test_an_instruction_that_is_too_long_to_keep_is_refused_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(learning, "fit", lambda *_: pytest.fail("it trained"))
    long = "word " * 4001
    file = write_rows(tmp_path / "rows.jsonl", [{"prompt": f"{long}{n}", "answer": "a"} for n in range(10)])
    recipe = Recipe("a", keep_instruction=True, max_length=10**6, metric_rows=0)
    with pytest.raises(DataError, match="does not fit into a package") as caught:
        learn(file, trained()[0], tmp_path / "a.lime", recipe, PLAN)
    assert "interface.input.prefix" in caught.value.faults[0]


def test_conversations_keep_their_prompts_and_the_form_of_answers_can_be_given(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "Say: hello"}, {"role": "assistant", "content": "hello"}]
    rows = [
        {"messages": [*turns, {"role": "user", "content": f"Say: {n}"}, {"role": "assistant", "content": "a"}]}
        for n in range(10)
    ]
    file = write_rows(tmp_path / "rows.jsonl", rows)
    form = AnswerForm("regex", "[a-z]+")
    skill, _ = learn(file, trained()[0], tmp_path / "a.lime", Recipe("a", answers=form), PLAN)
    assert skill.manifest.made == {
        "how": "learned",
        "instruction": "none",
        "data": {"rows": 9, "dropped": 0, "duplicates": 0, "overlap": 0},
    }
    assert skill.manifest.interface == Interface(answers=form)


def test_the_draft_table_comes_from_the_training_answers(tmp_path: Path) -> None:
    given = (tasks() / "skill", trained()[0], tmp_path / "a.lime")
    skill, figures = learn(*given, Recipe("a", metric_rows=0), PLAN)
    assert skill.draft is not None
    assert (figures["draft_entries"], figures["draft_bytes"]) == (len(skill.draft), skill.draft.size)
    without, figures = learn(*given, Recipe("a", metric_rows=0, draft=False), PLAN)
    assert without.draft is None
    assert not {"draft_entries", "draft_bytes"} & figures.keys()
    assert without.manifest == dataclasses.replace(skill.manifest, draft=None, digest=without.digest)
