"""What a package says of its requests and answers, from the rows that it was learned from."""

from __future__ import annotations

from typing import Any

from lime_edge.evaluation.examples import Row
from lime_edge.evaluation.instruction import Instruction
from lime_edge.skills.interface import AnswerForm, Interface
from lime_edge.training.dataset import chat_of
from lime_edge.training.skill_interface import draft_table, interface_of
from tests.support.tiny_training import tokenizer


def row(prompt: str, answer: str = "yes", choices: tuple[str, ...] = ()) -> Row:
    return Row(({"role": "user", "content": prompt},), answer, choices)


def test_the_interface_has_the_kept_ends_and_the_shortest_requests() -> None:
    rows = [row(text) for text in ("three", "a", "bb", "x" * 201, "a", "four")]
    found = interface_of(rows, Instruction("Say: ", "\nNow:"), system="be brief")
    assert found == Interface(system="be brief", prefix="Say: ", suffix="\nNow:", examples=("a", "bb", "four"))


def test_choices_that_all_rows_share_become_the_form_of_the_answers() -> None:
    rows = [row("a", "yes", ("yes", "no")), row("b", "no", ("no", "yes"))]
    assert interface_of(rows, Instruction()).answers == AnswerForm("choices", ["yes", "no"])
    given = AnswerForm("regex", "yes|no")
    assert interface_of(rows, Instruction(), given).answers == given
    for other in (row("c"), row("c", "yes", ("yes", "maybe"))):
        assert interface_of([*rows, other], Instruction()).answers == AnswerForm()
    long: Any = ("x" * 1001, "no")
    assert interface_of([row("a", "no", long)], Instruction()).answers == AnswerForm()


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
