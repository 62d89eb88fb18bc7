"""Parse and validate untrusted JSON: a strict parser, and small checks that report every fault.

A check takes the path of a value in the document and the value. It yields one line per fault, with the value found and
the value expected. Checks compose (`record`, `sequence`) and never raise.
"""

from __future__ import annotations

import json
import re
import reprlib
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from typing import Any

Check = Callable[[str, Any], Iterator[str]]

OPENED_LIMIT, PARTS_LIMIT = 2**16, 2**19  # opening brackets and braces; commas and colons
_SHOWN = 40  # most faults listed in one error; the rest are counted
_WIDTH = 400  # most characters of one value in a fault


class _Short(reprlib.Repr):
    """Also shows whole numbers that Python refuses to write in decimal."""

    def repr_int(self, x: int, level: int) -> str:
        try:
            return super().repr_int(x, level)
        except ValueError:
            return f"a whole number of {x.bit_length()} bits"


_short = _Short()
_short.maxstring = _short.maxother = _short.maxlong = 80
_short.maxlevel = 3


def show(value: Any) -> str:
    """A `repr` of bounded length, safe for a terminal and for values of any depth."""
    text = _short.repr(value)
    return text if len(text) <= _WIDTH else f"{text[:_WIDTH]}..."


def bounded(faults: list[str]) -> list[str]:
    """The first faults, at most a screenful, and the number of the others."""
    rest = len(faults) - _SHOWN
    return faults if rest <= 0 else [*faults[:_SHOWN], f"and {rest} more faults"]


def load_json(data: bytes | str) -> Any:
    """Parse JSON, rejecting what parsers interpret differently.

    Raises:
        ValueError: Not UTF-8, not JSON, a duplicate key, NaN or Infinity, nested too deeply, too many values.
    """
    text = data if isinstance(data, str) else data.decode("utf-8")
    _limit(text)
    try:
        return _DECODER.decode(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def load_json_at(text: str, start: int) -> tuple[Any, int]:
    """Parse the JSON value that begins at `start` like `load_json`; return it and the index of its end."""
    _limit(text)
    try:
        found: tuple[Any, int] = _DECODER.raw_decode(text, start)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    return found


def _limit(text: str) -> None:
    """Reject a document with too many values before parsing, which takes up to thirty times the text's memory."""
    opened, parts = text.count("[") + text.count("{"), text.count(",") + text.count(":")
    if opened > OPENED_LIMIT or parts > PARTS_LIMIT:
        raise ValueError(
            f"contains {opened} of [ and {{ and {parts} of , and : (also counted inside strings); "
            f"expected at most {OPENED_LIMIT} and {PARTS_LIMIT}"
        )


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise ValueError(f"key {show(key)} appears twice in one object")
            seen.add(key)
    return found


def _no_constant(word: str) -> float:
    raise ValueError(f"{word} is not a JSON number")


def _whole(digits: str) -> int:
    if digits == "-0":  # some parsers return an integer, others a float
        raise ValueError("-0 is not a whole number")
    return int(digits)


_DECODER = json.JSONDecoder(object_pairs_hook=_no_duplicates, parse_constant=_no_constant, parse_int=_whole)


def text(limit: int, *, least: int = 0, pattern: str = "", what: str = "text", controls: str = "") -> Check:
    """A string of `least` to `limit` characters that fully matches `pattern`.

    Args:
        controls: Allowed control characters; ``"all"`` allows every one. Surrogates, which UTF-8 cannot encode, never
            are.
    """
    expected = f"{what} of at most {limit} characters" if not least else f"{what} of {least} to {limit} characters"
    matching = re.compile(pattern, re.ASCII)

    def check(where: str, value: Any) -> Iterator[str]:
        if not isinstance(value, str) or not least <= len(value) <= limit:
            yield f"{where} is {show(value)}; expected {expected}"
        elif pattern and not matching.fullmatch(value):
            yield f"{where} is {show(value)}; expected {expected}, matching {pattern}"
        elif value.isprintable():
            return
        elif bad := {c for c in value if not _allowed(c, controls)}:
            yield f"{where} contains {show(sorted(bad))}; expected no control or surrogate characters"

    return check


def _allowed(character: str, controls: str) -> bool:
    category = unicodedata.category(character)
    return category != "Cs" and (category != "Cc" or controls == "all" or character in controls)


def number(low: float, high: float) -> Check:
    """A finite number from `low` to `high`; a bool is not a number."""

    def check(where: str, value: Any) -> Iterator[str]:
        real = isinstance(value, int | float) and not isinstance(value, bool)
        # Python compares int and float exactly: a huge int cannot overflow here.
        if not real or not low <= value <= high:
            yield f"{where} is {show(value)}; expected a number from {low:g} to {high:g}"

    return check


def whole(low: int, high: int) -> Check:
    """An int from `low` to `high`; a bool or 2.0 is not an int."""

    def check(where: str, value: Any) -> Iterator[str]:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            yield f"{where} is {show(value)}; expected a whole number from {low} to {high}"

    return check


def one_of(*values: str) -> Check:
    """One of the given words."""

    def check(where: str, value: Any) -> Iterator[str]:
        if not isinstance(value, str) or value not in values:
            yield f"{where} is {show(value)}; expected one of {', '.join(values)}"

    return check


def flag(where: str, value: Any) -> Iterator[str]:
    """A check for true or false."""
    if not isinstance(value, bool):
        yield f"{where} is {show(value)}; expected true or false"


def sequence(item: Check, limit: int, least: int = 0) -> Check:
    """A list of `least` to `limit` values that each pass `item`."""

    def check(where: str, value: Any) -> Iterator[str]:
        if not isinstance(value, list) or not least <= len(value) <= limit:
            found = f"a list of {len(value)}" if isinstance(value, list) else show(value)
            yield f"{where} is {found}; expected a list of {least} to {limit}"
            return
        for position, element in enumerate(value):
            yield from item(f"{where}[{position}]", element)

    return check


def record(required: Mapping[str, Check], optional: Mapping[str, Check] | None = None) -> Check:
    """An object with exactly the `required` keys and some of the `optional` ones."""
    known = {**required, **(optional or {})}

    def check(where: str, value: Any) -> Iterator[str]:
        if not isinstance(value, dict):
            yield f"{where} is {show(value)}; expected an object with {', '.join(known)}"
            return
        for key in sorted(set(value) - set(known)):
            yield f"{where} has the unknown key {show(key)}; known are {', '.join(known)}"
        for key in required:
            if key not in value:
                yield f"{where} lacks the key {key!r}"
        for key, inner in known.items():
            if key in value:
                yield from inner(f"{where}.{key}", value[key])

    return check


def mapping(key: Check, value: Check) -> Check:
    """An object with any keys that pass `key`, and values that pass `value`."""

    def check(where: str, found: Any) -> Iterator[str]:
        if not isinstance(found, dict):
            yield f"{where} is {show(found)}; expected an object"
            return
        for name, inner in found.items():
            yield from key(f"a key of {where}", name)
            yield from value(f"{where}[{show(name)}]", inner)

    return check
