"""Bounds on regular expressions and JSON schemas of unknown origin, beyond those that llguidance keeps itself.

llguidance limits the work of compiling a grammar and of computing a mask (runtime/constraints/grammar.py). It does not
limit how far it follows text that is forced, which is at most as long as the shortest answer (``a{1000000000}``), how
deep it recurses (a deep chain of references overflows the stack), or the automaton of ``multipleOf``. Both checks here
overestimate, and neither judges syntax: what llguidance cannot read, it refuses when it compiles.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from lime_edge.common.strict_json import show
from lime_edge.skills.interface import REGEX_LIMIT, SCHEMA_DEPTH

CHAIN_LIMIT = 256  # depth times the number of referenced parts
LITERAL_LIMIT = 512  # characters of a name or constant, and of the shortest text that a pattern matches
COUNT_LIMIT = 1000  # least length, items or properties

_HUGE = 10**9  # over every limit, and short enough to be shown

_ANNOTATIONS = ("$comment", "$id", "$schema", "description", "title")
_LEAST = ("minLength", "minItems", "minProperties")
_GUIDANCE: dict[str, tuple[Any, ...]] = {
    "item_separator": (", ", ","),
    "key_separator": (": ", ":"),
    "whitespace_flexible": (False, True),
}

_PART = re.compile(
    r"(?P<escape>\\(?:[pPxuUbB]\{[^{}]*\}|[\s\S]))|(?P<set>\[)|\(\?(?P<flags>[A-Za-z-]*)(?P<after>[:)])|(?P<open>\()"
    r"|(?P<close>\))|\{\s*(?P<least>\d+)\s*(?:,\s*\d*\s*)?\}|(?P<repeat>[*+?])|[\s\S]"
)
_IN_SET = re.compile(r"\[\^?\]?|\\[\s\S]|[\s\S]")


def regex_faults(where: str, pattern: str, limit: int = REGEX_LIMIT) -> Iterator[str]:
    """Faults of an expression: the flag x, or a shortest match that may be longer than `limit` characters."""
    size = shortest(pattern)
    if size is None:
        yield f"{where} is {show(pattern)}; expected no flag x (free spacing)"
    elif size > limit:
        yield f"{where} is {show(pattern)}; its repetitions ask for {show(size)} characters, expected at most {limit}"


def shortest(pattern: str) -> int | None:
    """An upper bound of the length of the shortest text that an expression matches; None if it sets the flag x.

    Every character counts 1, in alternatives and options too, and a repetition multiplies what it repeats by its
    least number. With the flag x, whitespace and comments would count differently.
    """
    sums, lasts = [0], [0]  # of each open group: the length so far, and that of the part that a repetition would repeat
    at = 0
    while at < len(pattern):
        match = _PART.match(pattern, at)
        assert match is not None  # the last alternative matches every character
        at = _end_of_set(pattern, at) if match["set"] else match.end()
        if "x" in (match["flags"] or ""):
            return None
        if match["open"] or match["after"] == ":":
            sums.append(0)
            lasts.append(0)
        elif match["close"] and len(sums) > 1:
            inside = sums.pop()
            lasts.pop()
            sums[-1], lasts[-1] = sums[-1] + inside, inside
        elif match["least"]:
            more = min(lasts[-1] * (max(int(match["least"]), 1) - 1), _HUGE)
            sums[-1], lasts[-1] = sums[-1] + more, lasts[-1] + more
        elif not match["repeat"]:
            sums[-1], lasts[-1] = sums[-1] + 1, 1
    return sum(sums)


def _end_of_set(pattern: str, at: int) -> int:
    """Index after the set that begins at `at`; sets nest, and a first ``]`` is a member."""
    depth = 0
    while at < len(pattern):
        match = _IN_SET.match(pattern, at)
        assert match is not None
        at = match.end()
        depth += match[0][0] == "["
        depth -= match[0] == "]"
        if not depth:
            break
    return at


def schema_faults(schema: Any) -> Iterator[str]:
    """Faults of a parsed JSON schema that make its cost unbounded; unknown keywords are left to llguidance."""
    if not isinstance(schema, dict):
        yield f"schema is {show(schema)}; expected an object"
        return
    deepest, references = 0, set()
    for depth, key, value, literal in _walk(schema):
        deepest = max(deepest, depth)
        if key == "$ref" and isinstance(value, str):
            references.add(value)
        yield from _value_faults(depth, key, value, literal)
    if deepest > SCHEMA_DEPTH:
        yield f"schema is nested {deepest} deep; expected at most {SCHEMA_DEPTH}"
    elif (chain := deepest * (1 + len(references))) > CHAIN_LIMIT:
        yield (
            f"schema is nested {deepest} deep and has {len(references)} references: {chain}; expected depth * (1 + "
            f"references) of at most {CHAIN_LIMIT}"
        )


def _walk(value: Any, key: str = "", literal: bool = False, depth: int = 1) -> Iterator[tuple[int, str, Any, bool]]:
    """Every value with its depth, the key it stands under, and whether it is part of a constant.

    load_json bounds the depth by Python's recursion limit; this walk goes on to SCHEMA_DEPTH only.
    """
    yield depth, key, value, literal
    if depth > SCHEMA_DEPTH:
        return
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _walk(inner, name, literal or name in ("const", "enum"), depth + 1)
    elif isinstance(value, list):
        for inner in value:
            yield from _walk(inner, key, literal, depth + 1)


def _value_faults(depth: int, key: str, value: Any, literal: bool) -> Iterator[str]:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if isinstance(value, dict):
        yield from _name_faults(key, value)
    elif isinstance(value, str) and len(value) > LITERAL_LIMIT and (literal or key not in _ANNOTATIONS):
        yield f"{show(key)} is text of {len(value)} characters; expected at most {LITERAL_LIMIT}"
    elif key == "pattern" and isinstance(value, str):
        yield from regex_faults("pattern", value, LITERAL_LIMIT)
    elif key == "multipleOf" and number:
        yield f"multipleOf is {show(value)}; expected no multipleOf, which is not supported"
    elif key in _LEAST and number and value > COUNT_LIMIT:
        yield f"{key} is {show(value)}; expected at most {COUNT_LIMIT}"
    if key == "x-guidance":
        yield from _guidance_faults(depth, value)


def _name_faults(key: str, value: dict[str, Any]) -> Iterator[str]:
    for name in value:
        if len(name) > LITERAL_LIMIT:
            yield f"a name in {show(key)} has {len(name)} characters; expected at most {LITERAL_LIMIT}"
        elif key == "patternProperties":
            yield from regex_faults("a pattern of patternProperties", name, LITERAL_LIMIT)


def _guidance_faults(depth: int, value: Any) -> Iterator[str]:
    known = ", ".join(f"{name} ({' or '.join(map(repr, values))})" for name, values in _GUIDANCE.items())
    fits = isinstance(value, dict) and all(found in _GUIDANCE.get(name, ()) for name, found in value.items())
    if depth != 2 or not fits:
        yield f"x-guidance is {show(value)}; expected it at the top, with some of {known}"
