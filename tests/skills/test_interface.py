"""The interface of a skill: to JSON and back, what may stand in it, and what is refused by name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from lime_edge.skills.interface import INTERFACE, AnswerForm, Interface, nullable
from lime_edge.skills.package import read_skill, write_skill
from tests.skills.format_2_cases import INTERFACES, MADE
from tests.support.faults.malformed import Case, assert_refused, manifest, vectors

SCHEMA = '{"type":"object","properties":{"b":{"type":"string"},"a":{"type":"integer"}}}'


@pytest.mark.parametrize(
    "answers",
    [
        AnswerForm(),
        AnswerForm("choices", ["yes", "no"]),
        AnswerForm("choices", [str(number) for number in range(1000)]),
        AnswerForm("schema", SCHEMA),
        AnswerForm("schema", '{"a":' * 32 + "1" + "}" * 32),
        AnswerForm("regex", r"\d{4}-\d{2}"),
    ],
    ids=lambda answers: answers.kind,
)
def test_every_form_of_answers_comes_back(tmp_path: Path, answers: AnswerForm) -> None:
    interface = replace(manifest().interface, answers=answers)
    wrote = write_skill(tmp_path / "a.lime", manifest(interface=interface), vectors())
    assert read_skill(wrote.path).interface == interface


def test_a_schema_keeps_the_order_of_its_properties(tmp_path: Path) -> None:
    """The manifest sorts keys, so a schema is text: its order is the order in which an answer is written."""
    interface = Interface(answers=AnswerForm("schema", SCHEMA))
    assert write_skill(tmp_path / "a.lime", manifest(interface=interface), vectors()).interface.answers.value == SCHEMA


def test_an_interface_is_its_own_round_trip() -> None:
    whole = manifest().interface
    for interface in (whole, Interface()):
        assert list(INTERFACE("interface", interface.to_dict())) == []
        assert Interface.from_dict(interface.to_dict()) == interface


def test_nullable_accepts_null_besides() -> None:
    check = nullable(lambda where, value: iter([f"{where} is {value}"]))
    assert list(check("it", None)) == []
    assert list(check("it", 1)) == ["it is 1"]


@pytest.mark.parametrize("case", INTERFACES + MADE, ids=lambda case: case.name)
def test_malformed_interfaces_are_refused_with_the_reason(tmp_path: Path, case: Case) -> None:
    assert_refused(tmp_path / "bad.lime", case)
