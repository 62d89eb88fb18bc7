"""Mutants: valid packages after one to three edits, most of them with length and digest repaired.

A mutant with a wrong length or digest is refused by the first check and tests nothing behind it. The same state of the
random generator gives the same mutant. tests/support/verdict.py decides whether a mutant may be accepted.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from tests.support.faults.malformed import framed

Parts = tuple[bytes, bytes]  # header and body of a package
Edit = Callable[[Random, Parts], Parts]

SEALED = 0.8  # share of mutants whose digest is computed again
NUMBERS: list[Any] = [0, 1, -1, 2, 3, 31, 32, 33, 127, 128, 255, 256, 2**15, 2**16 - 1, 2**24, 2**24 + 1]
NUMBERS += [2**31 - 1, 2**31, 2**32, 2**40, 2**53 + 1, 2**63 - 1, 2**64, 10**400, 0.5, -0.0, 1e-9, 65504.0, 65520.0]
VALUES = [
    *NUMBERS,
    1e308,
    True,
    False,
    None,
    "",
    "x",
    [],
    {},
    [[]],
    "a" * 300,
    "../x",
    "\0",
    "é",
    "\u202e",
    "\U0001f600",
]
FORMS = [
    "-0",
    "0.0",
    "1.0",
    "1e0",
    "1E2",
    "01",
    "+1",
    "1.",
    "0x10",
    "NaN",
    "-Infinity",
    "1e999999",
    "9" * 400,
    "9" * 5000,
]
WORDS = ["F16", "I8", "F32", "BF16", "U8", "I64", "float16", "expert", "gain", "shift", "rank", ".scale", "always"]
WORDS += ["choices", "schema", "regex", "text", "draft.next", "route.centroids", "I32", "U16", "carried", "interface"]
WORDS += ["response", "lime", "format", "__metadata__", "digest", "1.0.0", "2026-02-29", "MIT", "0" * 64, "a.b", "é"]
LENGTHS = [0, 1, 7, 8, 2**23, 2**23 + 1, 2**31, 2**32, 2**63, 2**64 - 1]
HALVES = [0x7C00, 0xFC00, 0x7E00, 0x7BFF, 0x8000, 0x0001, 0x8001, 0x3C00, 0xBC00, 0x4C00]  # F16: inf, nan, max, -0, ...
_NUMBER = re.compile(rb"(?<![\w.\"-])-?\d+(\.\d+)?(e[+-]?\d+)?(?![\w.\"])")
_DIGEST = re.compile(r'"digest":"([0-9a-f]{64})",')
_TYPES = {"F16": "float16", "I8": "int8", "I32": "int32", "U16": "uint16", "U8": "uint8"}


def mutant(random: Random, seeds: Sequence[bytes]) -> bytes:
    """An edited copy of one of the packages."""
    whole = random.choice(seeds)
    parts = apart(whole)
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        edit = random.choice(EDITS)
        parts = edit(random, apart(random.choice(seeds)) if edit is _splice and random.random() < 0.5 else parts)
    data = framed(*parts)
    if random.random() < SEALED:
        data = sealed(data)
    return _torn(random, data) if random.random() < 0.1 else data


def apart(data: bytes) -> Parts:
    """Header and body of any bytes."""
    size = min(int.from_bytes(data[:8], "little"), max(0, len(data) - 8))
    return data[8 : 8 + size], data[8 + size :]


def sealed(data: bytes) -> bytes:
    """The package with its digest repaired as docs/skill-format.md requires; unchanged if there is none to repair."""
    header, body = apart(data)
    try:
        document = json.loads(header)
        text = document.pop("__metadata__")["lime"]
        found = _DIGEST.search(text)
        if found is None:
            return data
        sha = hashlib.sha256(text.replace(found[0], "").encode() + b"\n")
        for name, entry in sorted(document.items()):
            begin, end = entry["data_offsets"]
            rows, columns = entry["shape"]
            sha.update(f'["{name}","{_TYPES[entry["dtype"]]}",[{rows},{columns}]]\n'.encode() + body[begin:end])
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return data
    return data.replace(found[1].encode(), sha.hexdigest().encode())


def _torn(random: Random, data: bytes) -> bytes:
    """Damage as from a bad disk or an interrupted download."""
    at = random.randrange(len(data) + 1)
    way = random.randrange(4)
    if way == 0:
        return data[:at]
    if way == 1:
        return data + random.randbytes(random.randrange(1, 40))
    if way == 2:
        return random.choice(LENGTHS).to_bytes(8, "little") + data[8:]
    return data[:at] + random.randbytes(random.randrange(1, 9)) + data[at + random.randrange(9) :]


def _bytes_of_header(random: Random, parts: Parts) -> Parts:
    header, body = parts
    at = random.randrange(len(header) + 1)
    piece = random.choice((random.randbytes(1), random.choice(WORDS).encode(), header[at : at + random.randrange(60)]))
    return header[:at] + piece + header[at + random.randrange(4) :], body


def _values(random: Random, parts: Parts) -> Parts:
    """Overwrite numbers in tensors: special F16 values, extreme int8 values, random bytes."""
    header, body = parts[0], bytearray(parts[1])
    for _ in range(random.choice((1, 1, 5))):
        at = random.randrange(len(body) + 1)
        half = random.choice(HALVES).to_bytes(2, "little")
        body[at & ~1 : (at & ~1) + 2] = random.choice((half, half, b"\x80\x80", b"\x7f\x81", random.randbytes(2)))
    return header, bytes(body)


def _draft_value(random: Random, parts: Parts) -> Parts:
    """Overwrite one number of the draft table."""
    header, body = parts
    try:
        document = json.loads(header)
        name = random.choice(sorted(name for name in document if name.startswith("draft.")))
        begin, end = document[name]["data_offsets"]
        width = {"I32": 4, "U16": 2}.get(document[name]["dtype"], 1)
        at = begin + random.randrange((end - begin) // width) * width
        value = random.choice((0, 1, 2, 3, 4, 255, 2**16 - 1, 2**31, random.randrange(2**32)))
        return header, body[:at] + (value % 256**width).to_bytes(width, "little") + body[at + width :]
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError):
        return parts


def _body_size(random: Random, parts: Parts) -> Parts:
    header, body = parts
    return header, random.choice((body[:-1], body + b"\0", body[: len(body) // 2], body * 2, b""))


def _form_of_a_number(random: Random, parts: Parts) -> Parts:
    header, body = parts
    found = list(_NUMBER.finditer(header))
    if not found:
        return parts
    one = random.choice(found)
    new = random.choice((random.choice(FORMS), str(random.choice(NUMBERS))))
    return header[: one.start()] + new.encode() + header[one.end() :], body


def _splice(random: Random, parts: Parts) -> Parts:
    """Copy, move or drop a part of the header, cut at commas so that the result may still be JSON."""
    header, body = parts
    pieces = header.split(b",")
    at, count = random.randrange(len(pieces)), random.randrange(1, 6)
    piece, to = pieces[at : at + count], random.randrange(len(pieces))
    if random.random() < 0.5:
        del pieces[at : at + count]
    if random.random() < 0.7:
        pieces[to:to] = piece
    return b",".join(pieces), body


def _as_json(edit: Callable[[Random, dict[str, Any], str], None]) -> Edit:
    """An edit of the parsed header and its manifest text; changes nothing if the header cannot be parsed."""

    def apply(random: Random, parts: Parts) -> Parts:
        try:
            document = json.loads(parts[0])
            edit(random, document, document["__metadata__"]["lime"])
            pad, spaced = b" " * random.randrange(9), random.random() < 0.2
            text = json.dumps(document, ensure_ascii=random.random() < 0.3, separators=None if spaced else (",", ":"))
            return text.encode("utf-8", "surrogatepass") + pad, parts[1]
        except (ArithmeticError, ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError):
            return parts

    return apply


def _header(random: Random, document: dict[str, Any], _: str) -> None:
    _change(random, document)


def _entry(random: Random, document: dict[str, Any], _: str) -> None:
    """Change shape, type, offsets or name of one tensor."""
    name = random.choice([key for key in document if key != "__metadata__"])
    entry = document[name]
    way = random.randrange(6)
    if way == 0:
        entry["dtype"] = random.choice(["F16", "I8", "U16", *VALUES, *WORDS])
    elif way == 1:
        entry["shape"] = random.choice(
            [entry["shape"][::-1], [1, entry["shape"][0] * entry["shape"][1]], [2], [2, 2, 2]]
        )
    elif way == 2:
        entry[random.choice(["shape", "data_offsets"])][random.randrange(2)] = random.choice(NUMBERS)
    elif way == 3:
        shift = random.choice((-2, -1, 1, 2, 80))
        entry["data_offsets"] = [offset + shift for offset in entry["data_offsets"]]
    elif way == 4:
        other = random.choice([key for key in document if key != "__metadata__"])
        document[name], document[other] = document[other], document[name]
    else:
        words = [*WORDS, ".", "/", "..", "a" * 200, " ", "é", "\0", "\ud800"]
        new = random.choice([name + random.choice(words), random.choice(words) + name, name[:-1], name.upper()])
        document[new] = document.pop(name)


def _manifest(random: Random, document: dict[str, Any], text: str) -> None:
    """Change one or two values of the manifest, which usually stays canonical."""
    manifest = json.loads(text)
    for _ in range(random.choice((1, 1, 2))):
        _change(random, manifest)
    separators = (",", ":") if random.random() < 0.9 else None
    made = json.dumps(manifest, sort_keys=random.random() < 0.95, separators=separators, ensure_ascii=False)
    document["__metadata__"]["lime"] = made


def _text(random: Random, document: dict[str, Any], text: str) -> None:
    """Change the manifest text: the form of a number, a duplicate key, an escape, white space."""
    way = random.randrange(3)
    if way == 0:
        header, _ = _form_of_a_number(random, (text.encode(), b""))
    elif way == 1:
        header, _ = _splice(random, (text.encode(), b""))
    else:
        header, _ = _bytes_of_header(random, (text.encode(), b""))
    document["__metadata__"]["lime"] = header.decode("utf-8", "replace")


def _change(random: Random, document: Any) -> None:
    """Replace, drop, duplicate or rename something anywhere in a JSON value."""
    places = list(_places(document))
    target, key = random.choice(places)
    way = random.randrange(7)
    if way == 0:
        del target[key]
    elif way == 1:
        other, name = random.choice(places)
        target[key] = json.loads(json.dumps(other[name]))
    elif way == 2 and isinstance(target, list):
        target.insert(key, target[key])
    elif way == 2:
        target[random.choice(WORDS)] = target[key]
    elif way == 3 and isinstance(target[key], str):
        at = random.randrange(len(target[key]) + 1)
        target[key] = target[key][:at] + random.choice([*"aZ9.- \n\x1b\x00é\u2028", *WORDS]) + target[key][at:]
    elif way == 3 and isinstance(target[key], int | float):
        target[key] = random.choice(
            [target[key] + 1, -target[key], target[key] / 2, float(target[key]), str(target[key])]
        )
    else:
        target[key] = random.choice([*VALUES, *WORDS])


def _places(value: Any) -> Any:
    """Every (container, key) inside a JSON value."""
    for key in list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield value, key
        yield from _places(value[key])


EDITS: list[Edit] = [
    _bytes_of_header,
    _values,
    _values,
    _draft_value,
    _draft_value,
    _body_size,
    _form_of_a_number,
    _splice,
    _as_json(_header),
    _as_json(_entry),
    _as_json(_entry),
    _as_json(_manifest),
    _as_json(_manifest),
    _as_json(_manifest),
    _as_json(_text),
]
