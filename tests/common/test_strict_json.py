"""Strict JSON: what the parser rejects, and the fault of every check."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lime_edge.common import strict_json
from lime_edge.common.strict_json import (
    Check,
    bounded,
    flag,
    load_json,
    load_json_at,
    mapping,
    number,
    one_of,
    record,
    sequence,
    show,
    text,
    whole,
)

ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b'{"a": 1, "b": {"c": 1, "c": 1}}', "key 'c' appears twice in one object"),
        (b"[NaN]", "NaN is not a JSON number"),
        (b"-Infinity", "-Infinity is not a JSON number"),
        (b"-0", "-0 is not a whole number"),
        (b"\xff", "can't decode"),
        (b"[1,]", "Expecting value|Illegal trailing comma"),
        (b"1 2", "Extra data"),
        (b"[" * 60_000, "nested too deeply"),
        (b"[" * (strict_json.OPENED_LIMIT + 1), r"contains 65537 of \[ and \{ and 0 of , and : \(also counted inside"),
        (b"," * (strict_json.PARTS_LIMIT + 1), "expected at most 65536 and 524288"),
    ],
)
def test_documents_that_are_rejected(data: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_json(data)


@given(ANY)
def test_other_documents_are_read_as_by_the_standard_library(value: Any) -> None:
    assert load_json(json.dumps(value)) == value


def test_a_value_inside_a_text() -> None:
    assert load_json_at('x = {"a": [1]} y', 4) == ({"a": [1]}, 14)
    with pytest.raises(ValueError, match="appears twice"):
        load_json_at('x{"a":1,"a":2}', 1)


FAULTS: list[tuple[Check, Any, list[str]]] = [
    (text(3), "abcd", ["x is 'abcd'; expected text of at most 3 characters"]),
    (text(3, least=1), "", ["x is ''; expected text of 1 to 3 characters"]),
    (text(9, pattern="[a-z]+", what="a name"), "aé", ["x is 'aé'; expected a name of at most 9 characters, matching"]),
    (text(9), "a\x07", [r"x contains ['\x07']; expected no control or surrogate characters"]),
    (text(9, controls="\n"), "a\n\t", [r"x contains ['\t']"]),
    (text(9, controls="all"), "a\ud800", [r"x contains ['\ud800']"]),
    (number(0, 1), True, ["x is True; expected a number from 0 to 1"]),
    (number(0, 1), float("nan"), ["x is nan"]),
    (number(0, 1), 10**400, ["x is 1000"]),
    (whole(0, 9), 2.0, ["x is 2.0; expected a whole number from 0 to 9"]),
    (whole(0, 9), False, ["x is False"]),
    (one_of("a", "b"), ["a"], ["x is ['a']; expected one of a, b"]),
    (flag, 1, ["x is 1; expected true or false"]),
    (sequence(whole(0, 9), 3), [1, "2", -3], ["x[1] is '2'", "x[2] is -3"]),
    (sequence(whole(0, 9), 1), [1, 2], ["x is a list of 2; expected a list of 0 to 1"]),
    (sequence(flag, 1), {}, ["x is {}; expected a list of 0 to 1"]),
    (
        record({"a": flag}, {"b": flag}),
        {"b": 0, "c": 0},
        ["x has the unknown key 'c'", "x lacks the key 'a'", "x.b is 0"],
    ),
    (record({"a": flag}), [], ["x is []; expected an object with a"]),
    (mapping(text(1), flag), {"ab": 1}, ["a key of x is 'ab'", "x['ab'] is 1"]),
    (mapping(text(1), flag), None, ["x is None; expected an object"]),
]


@pytest.mark.parametrize(("check", "value", "faults"), FAULTS)
def test_faults_of_a_check(check: Check, value: Any, faults: list[str]) -> None:
    found = list(check("x", value))
    assert len(found) == len(faults)
    for line, start in zip(found, faults, strict=True):
        assert line.startswith(start)


PASSES: list[tuple[Check, Any]] = [
    (text(3), "aé\u200b"),
    (text(9, controls="\n"), "a\nb"),
    (number(0, 1), 1),
    (whole(0, 9), 9),
    (one_of("a"), "a"),
    (flag, False),
    (sequence(flag, 2), [True]),
    (record({"a": flag}, {"b": flag}), {"a": True}),
    (mapping(text(1), flag), {"a": True}),
]


@pytest.mark.parametrize(("check", "value"), PASSES)
def test_valid_values_pass(check: Check, value: Any) -> None:
    assert list(check("x", value)) == []


@given(ANY)
def test_a_check_never_raises_and_every_fault_says_where(value: Any) -> None:
    inner = record({"a": sequence(text(3, pattern="a*"), 2)}, {"b": mapping(whole(0, 9), number(0, 1))})
    assert all(line.startswith(("x", "a key of x")) and line.isprintable() for line in inner("x", value))


def test_a_long_or_deep_value_is_shown_short() -> None:
    deep: Any = []
    for _ in range(5000):
        deep = [deep]
    assert show(deep) == "[[[[...]]]]"
    wide = [["x" * 80] * 10] * 10
    assert len(show([wide, wide])) <= 403
    assert show([0] * 10**6) == "[0, 0, 0, 0, 0, 0, ...]"
    assert len(show("x" * 10**6)) == len(show(10**4000)) == 80
    assert show([-(10**5000)]) == "[a whole number of 16610 bits]"  # Python refuses to write it in decimal


def test_only_a_screenful_of_faults_is_listed() -> None:
    assert bounded(["a"] * 40) == ["a"] * 40
    assert bounded(["a"] * 43) == [*["a"] * 40, "and 3 more faults"]
