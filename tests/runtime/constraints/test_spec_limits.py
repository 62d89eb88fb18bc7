"""Bounds on expressions and schemas: never below the true cost, and useful specifications pass."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lime_edge.runtime.constraints.spec_limits import regex_faults, schema_faults, shortest

_EXPRESSIONS = st.recursive(
    st.sampled_from(["a", r"\d", r"\)", r"\\", "[()]", "[]a]", r"[^\]]", "[a{9}]", "b", ".", r"\{"]),
    lambda inner: (
        st.tuples(inner, inner).map("".join)
        | st.tuples(inner, inner).map("(%s|%s)".__mod__)
        | st.tuples(inner, st.sampled_from(["*", "+", "?", "{3}", "{2,}", "{0,4}", "{12,20}", "{3}?", "{2,5}?"])).map(
            "(?:%s)%s".__mod__
        )
    ),
    max_leaves=12,
)


@settings(max_examples=500, deadline=None)
@given(_EXPRESSIONS)
def test_never_less_than_the_shortest_match(pattern: str) -> None:
    size = shortest(pattern)
    assert size is not None
    compiled: Any = re.compile(pattern)
    low = re._parser.parse(pattern).getwidth()[0]  # type: ignore[attr-defined]  # the standard library's own count
    assert size >= low
    assert compiled is not None


@pytest.mark.parametrize(
    ("pattern", "size"),
    [
        ("abc", 3),
        (r"\d{4}-\d{2}-\d{2}", 10),
        ("(ab){3}c", 7),
        ("((a{10}){10}){10}", 1000),
        ("a{10}{10}", 100),
        ("a+{10}", 10),
        ("(ab)+{10}", 20),
        ("a{ 10 , 20 }", 10),
        ("a{0,1000}", 1),
        (r"(\)a{100}){10}", 1010),
        ("([)]a{100}){10}", 1010),
        ("([]()]a{100}){10}", 1010),
        ("([^](]a{100}){10}", 1010),
        ("([a[(]b]a{100}){10}", 1010),
        ("([[:alpha:](]a{100}){10}", 1010),
        (r"([\]\[(]a{100}){10}", 1010),
        (r"\p{Greek}{10}\x{41}{10}", 20),
        ("(?i)(?:ab){10}", 21),
        ("(?P<n>a){10}", 50),
        ("(((a{10}", 10),
        (")))a{10}", 13),
        ("a{00000000000000000020}", 20),
        ("a{99999999999999999999}", 10**9 + 1),
        ("((a{999999999}){999999999}){999999999}", 3 * 10**9 - 1),
        ("[[[", 1),
        ("\\", 1),
    ],
)
def test_sizes(pattern: str, size: int) -> None:
    assert shortest(pattern) == size


@pytest.mark.parametrize("pattern", ["(?x)a {10}", "(?ix:a)", r"\\(?x)a", "(?-x)a"])
def test_free_spacing_is_refused(pattern: str) -> None:
    assert shortest(pattern) is None
    assert next(regex_faults("it", pattern)).endswith("expected no flag x (free spacing)")


def test_patterns_of_daily_use_pass() -> None:
    for pattern in (
        r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}",
        r"[\w.+-]{1,64}@[a-z0-9-]+(\.[a-z0-9-]+)+",
        r"(GET|POST) /[a-z/]* HTTP/1\.[01]",
        r".{0,2000}",
    ):
        assert list(regex_faults("it", pattern, 512)) == []


def _nested(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(depth):
        schema = {"type": "object", "properties": {"a": schema}}
    return schema


def _chain(count: int) -> dict[str, Any]:
    parts = {f"a{n}": {"type": "array", "items": {"$ref": f"#/$defs/a{n + 1}"}} for n in range(count)}
    return {"$ref": "#/$defs/a0", "$defs": {**parts, f"a{count}": {"type": "null"}}}


@pytest.mark.parametrize(
    ("schema", "fault"),
    [
        (True, "expected an object"),
        (_nested(16), "nested 33 deep; expected at most 32"),
        (_chain(300), "has 301 references"),
        ({"type": "string", "pattern": "^(a{100}){100}$"}, "ask for 10002 characters, expected at most 512"),
        ({"patternProperties": {"^(a{100}){100}$": {}}}, "a pattern of patternProperties"),
        ({"properties": {"a": {"multipleOf": 99991}}}, "multipleOf is 99991"),
        ({"minItems": 10**9}, "minItems is 1000000000; expected at most 1000"),
        ({"minLength": 1e9}, "minLength is"),
        ({"enum": ["x" * 513]}, "text of 513 characters"),
        ({"const": {"description": "x" * 513}}, "text of 513 characters"),
        ({"required": ["x" * 513]}, "text of 513 characters"),
        ({"properties": {"x" * 513: {}}}, "a name in 'properties' has 513"),
        ({"x-guidance": {"lenient": True}}, "expected it at the top, with some of item_separator"),
        ({"x-guidance": {"item_separator": ", " * 9}}, "expected it at the top"),
        ({"x-guidance": 5}, "expected it at the top"),
        ({"properties": {"x-guidance": {"item_separator": ","}}}, "expected it at the top"),
    ],
)
def test_schemas_that_are_refused(schema: Any, fault: str) -> None:
    found = list(schema_faults(schema))
    assert len(found) == 1
    assert fault in found[0]


@pytest.mark.parametrize(
    "schema",
    [
        {},
        _nested(15),
        _chain(40),
        {"properties": {"multipleOf": {"type": "integer"}, "pattern": {"type": "string"}, "minLength": {}}},
        {"description": "x" * 5000, "properties": {"a": {"description": "y" * 5000}}},
        {"type": "string", "minLength": 1000, "maxLength": 10**6},
        {"x-guidance": {"item_separator": ",", "key_separator": ":", "whitespace_flexible": False}},
    ],
)
def test_schemas_that_pass(schema: Any) -> None:
    assert list(schema_faults(schema)) == []
