"""The trust policy file: strict TOML that names trusted publishers, their keys and revocations.

Reading reports every fault at once. policy.py applies the document to a skill.
Normative page: docs/trust.md.
"""

from __future__ import annotations

import os
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any

from lime_edge.common.files import read_bounded
from lime_edge.common.strict_json import Check, bounded, flag, mapping, record, sequence, show, text, whole
from lime_edge.errors import PolicyError
from lime_edge.skills.manifest import DIGEST, NAME, VERSION

from .keys import KEY_LIMIT, PublicKey, read_key

FORMAT = 1
POLICY_LIMIT = 2**20  # bytes
_DAY = timedelta(days=1)


@dataclass(frozen=True)
class Window:
    """A validity period: `start` is inside, `end` is outside; None means unlimited."""

    start: datetime | None = None
    end: datetime | None = None


@dataclass(frozen=True)
class Publisher:
    """A publisher whose skills the policy accepts.

    Attributes:
        name: Shown to people, and unique in the policy.
        skills: Patterns of skill names that the publisher may ship: ``*`` matches any text, ``?`` one character.
        keys: Keys of the publisher, each with its validity period.
    """

    name: str
    skills: tuple[str, ...]
    keys: tuple[tuple[PublicKey, Window], ...]


@dataclass(frozen=True)
class PolicyDocument:
    """The contents of a policy file."""

    require_signatures: bool
    validity: Window = Window()
    publishers: tuple[Publisher, ...] = ()
    minimum: Mapping[str, str] = field(default_factory=dict)  # skill name -> oldest accepted version
    revoked_skills: frozenset[str] = frozenset()  # digests
    revoked_keys: frozenset[str] = frozenset()  # fingerprints


def read_policy_document(path: str | os.PathLike[str]) -> PolicyDocument:
    """Read a policy file and the key files that it names, relative to the folder of the policy.

    Raises:
        PolicyError: Names every fault.
        MissingExtraError: The policy lists keys, and `cryptography` is not installed.
    """
    try:
        document = tomllib.loads(read_bounded(path, POLICY_LIMIT).decode("utf-8"))
    except OSError as error:
        raise PolicyError(f"the trust policy {path} cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise PolicyError(f"the trust policy {path} is not TOML: {error}") from error
    version = document.get("format", FORMAT)
    if isinstance(version, int) and version != FORMAT:
        raise PolicyError(
            f"the trust policy {path} has format {version}; this lime-edge reads {FORMAT}: update lime-edge"
        )
    faults = [*_POLICY("policy", document)]
    terms = None if faults else _terms(document, Path(path).parent, faults)
    if terms is None or faults:
        raise PolicyError(f"the trust policy {path} cannot be used", bounded(faults))
    return terms


def _terms(document: Mapping[str, Any], folder: Path, faults: list[str]) -> PolicyDocument:
    """Build the policy from a well-formed document; contradictions in it are added to `faults`."""
    publishers = tuple(_publisher(entry, folder, faults) for entry in document.get("publishers", ()))
    faults += _duplicates("publisher", [one.name for one in publishers])
    faults += _duplicates("key", [key.id for one in publishers for key, _ in one.keys])
    if document["require_signatures"] and not publishers:
        faults.append(
            "policy.require_signatures is true, but no publisher is listed whose signatures could be accepted"
        )
    revoked = document.get("revoked", {})
    return PolicyDocument(
        document["require_signatures"],
        _window(document, "", "expires"),
        publishers,
        document.get("minimum", {}),
        frozenset(revoked.get("skills", ())),
        frozenset(revoked.get("keys", ())),
    )


def _publisher(entry: Mapping[str, Any], folder: Path, faults: list[str]) -> Publisher:
    keys = []
    for number, known in enumerate(entry["keys"]):
        where, window = f"publisher {entry['name']!r}, key {number}", _window(known, "from", "until")
        if ("file" in known) == ("pem" in known):
            faults.append(f"{where}: expected either file or pem")
            continue
        if window.start and window.end and window.start >= window.end:
            faults.append(f"{where}: until {known['until']} is before from {known['from']}")
        try:
            key = read_key(folder / known["file"]) if "file" in known else PublicKey.from_pem(known["pem"].encode())
            keys.append((key, window))
        except PolicyError as error:
            faults.append(f"{where}: {error.message}")
    return Publisher(entry["name"], tuple(entry["skills"]), tuple(keys))


def _duplicates(what: str, names: list[str]) -> Iterator[str]:
    for name, count in Counter(names).items():
        if count > 1:
            yield f"the {what} {show(name)} occurs {count} times; expected once"


def _window(table: Mapping[str, Any], start: str, end: str) -> Window:
    """The period between two dates or times; a date means the whole day, in UTC."""
    first, last = _midnight(table.get(start)), _midnight(table.get(end))
    if last is not None and not isinstance(table[end], datetime):
        last = min(last, datetime.max.replace(tzinfo=UTC) - _DAY) + _DAY
    return Window(first, last)


def _midnight(value: date | datetime | None) -> datetime | None:
    """The time at which a day begins; a time is returned unchanged."""
    return value if value is None or isinstance(value, datetime) else datetime.combine(value, time(), UTC)


def _moment(where: str, value: Any) -> Iterator[str]:
    if not isinstance(value, date) or (isinstance(value, datetime) and value.tzinfo is None):
        yield f"{where} is {show(value)}; expected a date, 2027-01-31, or a time with its zone, without quotes"


_DIGESTS = sequence(DIGEST, 100_000)
_KEY: Check = record(
    {},
    {
        "file": text(1000, least=1),
        "pem": text(KEY_LIMIT, least=1, controls="\n\r\t"),
        "from": _moment,
        "until": _moment,
    },
)
_PATTERN = text(64, least=1, pattern=r"[a-z0-9._*?-]+", what="a name or pattern")
_PUBLISHER = record(
    {
        "name": text(200, least=1),
        "skills": sequence(_PATTERN, 1000, least=1),
        "keys": sequence(_KEY, 100, least=1),
    }
)
_POLICY = record(
    {"format": whole(FORMAT, FORMAT), "require_signatures": flag},
    {
        "expires": _moment,
        "publishers": sequence(_PUBLISHER, 1000),
        "minimum": mapping(NAME, VERSION),  # by skill name
        "revoked": record({}, {"skills": _DIGESTS, "keys": _DIGESTS}),
    },
)
