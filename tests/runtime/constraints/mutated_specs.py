"""Mutated answer specifications, and what must hold for each of them.

    python -m tests.runtime.constraints.mutated_specs 20000

A manifest's specification is refused with SkillFormatError, or gives a constraint whose first steps work or raise
ConfigError. An input that takes longer than a minute ends the program with a traceback.
"""

from __future__ import annotations

import copy
import faulthandler
import json
import sys
import time
from collections import Counter
from typing import Any

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lime_edge.errors import ConfigError, SkillFormatError
from lime_edge.runtime.constraints.answer_spec import AnswerSpec
from lime_edge.runtime.constraints.constraint import Constraint

from .walks import constraints

STEPS = 6
_LONGEST = 20_000  # characters of a message

SEEDS: list[tuple[str, Any]] = [
    ("choices", ["yes", "no", "yes sir"]),
    ("schema", {"type": "object", "properties": {"a": {"type": "string", "maxLength": 9}}, "required": ["a"]}),
    ("schema", {"anyOf": [{"enum": ["x", 1]}, {"type": "array", "items": {"type": "integer"}, "minItems": 2}]}),
    ("schema", {"$ref": "#/$defs/a", "$defs": {"a": {"allOf": [{"type": "object"}, {"minProperties": 1}]}, "b": {}}}),
    ("schema", {"type": "string", "pattern": "^[a-z]{2,8}$", "minLength": 3, "x-guidance": {"key_separator": ":"}}),
    ("schema", {"patternProperties": {"^x": {"type": "number", "minimum": 0.5}}, "additionalProperties": False}),
    ("regex", r"[0-9]{4}-(0[1-9]|1[0-2])( [a-z]+)*"),
    ("regex", r"(?i:yes|no)\p{L}{2,}[^\s\]]?"),
    ("text", None),
]
_SCALARS = st.sampled_from(
    [
        *(None, True, 0, -1, 3, 1000, 10**6, 10**30, 0.1, 1e300, "", "a", "#", "#/$defs/a"),
        *("object", "string", "integer", "^(a{30}){30}$", "(a|b)*a(a|b){9}", "uuid", "x" * 600),
    ]
)
_KEYWORDS = st.sampled_from(
    [
        *("type", "properties", "required", "items", "prefixItems", "minItems", "maxItems", "minLength", "maxLength"),
        *("pattern", "enum", "const", "anyOf", "allOf", "oneOf", "$ref", "$defs", "format", "minimum", "multipleOf"),
        *("exclusiveMaximum", "minProperties", "maxProperties", "patternProperties", "additionalProperties"),
        *("x-guidance", "not", "$id", "$anchor", "description"),
    ]
)
_VALUES = st.recursive(
    _SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEYWORDS | st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
_PIECES = st.sampled_from(
    [*"()[]{}|*+?.\\^$/-,:\"'\n5aé", "{9}", "{99,}", "{0,999}", r"\p{L}", "(?x)", "[^", "&&", ".*"]
)


@st.composite
def documents(draw: st.DrawFn) -> Any:
    """A specification as in a manifest, with one to four mutations."""
    kind, value = copy.deepcopy(draw(st.sampled_from(SEEDS)))
    holder = [value]
    for _ in range(draw(st.integers(1, 4))):
        if isinstance(holder[0], str):
            holder[0] = _edited(draw, holder[0])
        else:
            _mutate(draw, holder)
    if kind == "schema":
        text = json.dumps(holder[0])
        holder[0] = _edited(draw, text) if draw(st.integers(0, 9)) == 0 else text
    document: Any = {"kind": kind, "value": holder[0]}
    return draw(_VALUES) if draw(st.integers(0, 49)) == 0 else document


def _edited(draw: st.DrawFn, text: str) -> str:
    at = draw(st.integers(0, len(text)))
    piece: str = draw(_PIECES)
    return text[:at] + piece + text[at + draw(st.integers(0, 3)) :]


def _mutate(draw: st.DrawFn, holder: list[Any]) -> None:
    """Set, add, remove or duplicate a value somewhere below `holder`."""
    target, key = draw(st.sampled_from(_places(holder)))
    how, inside = draw(st.integers(0, 3)), target[key]
    if how == 1 and isinstance(inside, dict):
        inside[draw(_KEYWORDS)] = draw(_VALUES)
    elif how == 2 and target is not holder:
        del target[key]
    elif how == 3:
        target[key] = {draw(st.sampled_from(["anyOf", "allOf", "items", "enum"])): [inside, copy.deepcopy(inside)]}
    else:
        target[key] = draw(_VALUES)


def _places(value: Any) -> list[tuple[Any, Any]]:
    keys = value.keys() if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    return [place for key in list(keys) for place in [(value, key), *_places(value[key])]]


def check(document: Any) -> str:
    """Read, compile and take a few random steps; returns where it ended."""
    try:
        row = constraints().constrain(AnswerSpec.from_dict(document), SkillFormatError)
    except SkillFormatError as error:
        return _ended("refused", error)
    try:
        return "accepted" if row is None else _begin(row)
    except ConfigError as error:
        return _ended("over a limit", error)


def _begin(row: Constraint) -> str:
    rng = np.random.default_rng(0)
    for _ in range(STEPS):
        mask, forced = row.allowed(), row.forced()
        assert mask.any() != row.done
        assert not forced or np.flatnonzero(mask).tolist() == forced[:1]
        if row.done:
            break
        row.accept(int(rng.choice(np.flatnonzero(mask))))
    return "accepted"


def _ended(where: str, error: Exception) -> str:
    assert len(str(error)) < _LONGEST
    return where


def main(count: int) -> None:
    """Check `count` specifications and print how they ended, and the longest time that one took."""
    tally, slowest = Counter[str](), 0.0

    @settings(max_examples=count, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(documents())
    def run(document: Any) -> None:
        nonlocal slowest
        faulthandler.dump_traceback_later(60, exit=True)
        started = time.process_time()
        tally[check(document)] += 1
        slowest = max(slowest, time.process_time() - started)

    run()
    faulthandler.cancel_dump_traceback_later()
    print(f"{tally.total()} specifications: {dict(tally)}; the slowest took {slowest:.2f} s")


if __name__ == "__main__":
    main(int(sys.argv[1]))
