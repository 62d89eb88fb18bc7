"""What users write and what manifests hold: the same specification, or every fault at once."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lime_edge.errors import ConfigError, SkillFormatError
from lime_edge.runtime.constraints.answer_spec import AnswerSpec

SCHEMA = {"type": "object", "properties": {"z": {"type": "string"}, "a": {"type": "integer"}}, "required": ["z"]}


def test_what_users_write() -> None:
    assert AnswerSpec.of(["yes", "no"]) == AnswerSpec("choices", ("yes", "no")) == AnswerSpec.of(("yes", "no"))
    assert AnswerSpec.of(SCHEMA) == AnswerSpec("schema", SCHEMA) == AnswerSpec("schema", json.dumps(SCHEMA))
    assert AnswerSpec.of(AnswerSpec("regex", "a+")) == AnswerSpec("regex", "a+")
    assert len({AnswerSpec.of(SCHEMA), AnswerSpec.of(dict(SCHEMA)), AnswerSpec("text")}) == 2


def test_order_of_properties_survives_a_manifest() -> None:
    found = AnswerSpec.from_dict(json.loads(json.dumps(AnswerSpec.of(SCHEMA).to_dict(), sort_keys=True)))
    assert list(json.loads(found.value)["properties"]) == ["z", "a"]


@pytest.mark.parametrize(
    "spec", [AnswerSpec.of(["a", "é\n"]), AnswerSpec.of(SCHEMA), AnswerSpec("regex", "[ab]+"), AnswerSpec("text")]
)
def test_round_trip(spec: AnswerSpec) -> None:
    document = spec.to_dict()
    assert set(document) == {"kind", "value"}
    assert AnswerSpec.from_dict(json.loads(json.dumps(document))) == spec


@pytest.mark.parametrize(
    ("kind", "value", "fault"),
    [
        ("choices", [], "expected a list of 1 to 1000"),
        ("choices", "yes", "expected a list"),
        ("choices", ["a", 5, ""], r"choices\[2\] is ''"),
        ("choices", ["a", "b", "a"], "expected each choice only once"),
        ("choices", ["a" * 1001], "1 to 1000 characters"),
        ("choices", [f"{n}" for n in range(1001)], "a list of 1001"),
        ("choices", [f"{n:0999}" for n in range(70)], "have 69930 characters; expected at most 65536"),
        ("choices", ["\ud800"], "no control or surrogate"),
        ("schema", "{", "schema is not JSON"),
        ("schema", "[]", "expected an object"),
        ("schema", '{"a": 1, "a": 2}', "appears twice"),
        ("schema", '{"maximum": NaN}', "NaN is not a JSON number"),
        ("schema", "[" * 30_000, "schema is not JSON: nested too deeply"),
        ("schema", '{"title": "' + "x" * 70_000 + '"}', "expected at most 65536"),
        ("schema", 5, "expected a JSON schema"),
        ("schema", {"const": {1, 2}}, "expected a JSON schema"),
        ("schema", {"const": float("nan")}, "expected a JSON schema"),
        ("regex", "", "1 to 4096 characters"),
        ("regex", "a" * 5000, "1 to 4096 characters"),
        ("regex", "a{1000000000}", "expected at most 4096"),
        ("regex", None, "1 to 4096 characters"),
        ("text", "x", "expected none"),
        ("lark", "x", "expected one of choices, schema"),
        (["choices"], ["x"], "expected one of choices, schema"),
    ],
)
def test_faults(kind: Any, value: Any, fault: str) -> None:
    with pytest.raises(ConfigError, match=fault):
        AnswerSpec(kind, value)
    if not isinstance(value, dict):
        with pytest.raises(SkillFormatError, match=fault if kind != "schema" or value != 5 else "as text"):
            AnswerSpec.from_dict({"kind": kind, "value": value})


def test_all_faults_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        AnswerSpec.of({"multipleOf": 3, "minLength": 10**9, "pattern": "a{100000}"})
    assert len(caught.value.faults) == 3
    with pytest.raises(ConfigError) as caught:
        AnswerSpec.of([1] * 500)
    assert len(str(caught.value)) < 20_000


@pytest.mark.parametrize(
    ("document", "fault"),
    [
        (5, "expected an object with kind, value"),
        ({"kind": "choices"}, "lacks the key 'value'"),
        ({"kind": "text", "value": None, "x": 1}, "unknown key 'x'"),
        ({"kind": "grammar", "value": 'start: "a"'}, "expected one of choices, schema, regex, text"),
        ({"kind": "schema", "value": {"type": "object"}}, "expected the JSON schema as text"),
    ],
)
def test_manifests_of_another_form(document: Any, fault: str) -> None:
    with pytest.raises(SkillFormatError, match=fault):
        AnswerSpec.from_dict(document)


@pytest.mark.parametrize("answers", ["yes", None, 5, {"yes", "no"}])
def test_what_is_no_specification(answers: Any) -> None:
    with pytest.raises(ConfigError, match="expected a list of choices, a JSON schema"):
        AnswerSpec.of(answers)


def test_callers_may_give_a_grammar() -> None:
    assert AnswerSpec("grammar", 'start: "a"').to_dict() == {"kind": "grammar", "value": 'start: "a"'}
    with pytest.raises(ConfigError, match="1 to 65536 characters"):
        AnswerSpec("grammar", "")
