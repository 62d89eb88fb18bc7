"""The trust policy file: refusals, all faults at once, and the contents of a valid file."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from lime_edge.errors import PolicyError
from lime_edge.trust.policy_file import POLICY_LIMIT, read_policy_document
from tests.support.signatures import Pair, key_table, pair, policy, publisher

ACME = pair("acme")
KEYS = key_table(ACME)
HOLDS = publisher("acme", ["legal"], KEYS)
PRIVATE = "-----BEGIN PRIVATE KEY-----\\n-----END PRIVATE KEY-----"

REFUSED = {
    "no TOML": ("format = ", "is not TOML"),
    "empty": ("", "lacks the key 'require_signatures'"),
    "another format": ("format = 2\nrequire_signatures = true", "reads 1"),
    "a misspelt key": (policy(HOLDS, head="requiresignatures = true"), "unknown key 'requiresignatures'"),
    "a word for a flag": ('format = 1\nrequire_signatures = "yes"', "expected true or false"),
    "a text for a date": (policy(HOLDS, head='expires = "2030-01-01"'), "without quotes"),
    "a time without its zone": (policy(HOLDS, head="expires = 2030-01-01T00:00:00"), "a time with its zone"),
    "nobody could sign": (policy(), "no publisher is listed"),
    "a publisher without keys": (policy(publisher("acme", ["legal"])), "lacks the key 'keys'"),
    "a publisher without skills": (policy(publisher("acme", [], KEYS)), "expected a list of 1 to 1000"),
    "a pattern that is a path": (policy(publisher("acme", ["../x"], KEYS)), "expected a name or pattern"),
    "two publishers of one name": (
        policy(HOLDS, publisher("acme", ["other"], key_table(pair("b")))),
        "'acme' occurs 2",
    ),
    "one key of two publishers": (policy(HOLDS, publisher("other", ["other"], KEYS)), "occurs 2 times"),
    "no key in the PEM": (policy(publisher("acme", ["x"], '[[publishers.keys]]\npem = "x"\n')), "not a public key"),
    "a private key": (
        policy(publisher("acme", ["x"], f'[[publishers.keys]]\npem = "{PRIVATE}"\n')),
        "this is a private key",
    ),
    "neither file nor PEM": (policy(publisher("acme", ["x"], "[[publishers.keys]]\n")), "either file or pem"),
    "both": (policy(publisher("acme", ["x"], KEYS + 'file = "x.pub"\n')), "either file or pem"),
    "a file that is not there": (
        policy(publisher("acme", ["x"], '[[publishers.keys]]\nfile = "no.pub"\n')),
        "no.pub cannot",
    ),
    "a key that ends before it begins": (
        policy(publisher("acme", ["x"], key_table(ACME, from_="2030-01-02", until="2030-01-01"))),
        "is before from",
    ),
    "a least version that is none": (policy(HOLDS, '[minimum]\nlegal = "1.0"'), "expected a semantic version"),
    "a least version of no name": (policy(HOLDS, '[minimum]\n"../x" = "1.0.0"'), "expected a name"),
    "least versions that are a list": (policy(head='minimum = ["legal"]', required=False), "expected an object"),
    "a digest that is none": (policy(HOLDS, '[revoked]\nskills = ["abc"]'), "expected a SHA-256"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str, tmp_path: Path) -> None:
    text, message = REFUSED[name]
    path = tmp_path / "policy.toml"
    path.write_text(text, "utf-8")
    with pytest.raises(PolicyError) as caught:
        read_policy_document(path)
    assert message in str(caught.value)


def test_every_fault_at_once(tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    path.write_text(
        policy(HOLDS, "[minimum]\nlegal = 1\n[revoked]\nkeys = [2]\n", head="expires = 3\nmore = 4"), "utf-8"
    )
    with pytest.raises(PolicyError) as caught:
        read_policy_document(path)
    assert len(caught.value.faults) == 4


def _huge(path: Path) -> None:
    with open(path, "wb") as file:
        file.truncate(POLICY_LIMIT + 1)


FILES: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda path: None, "cannot be read"),
    "a folder": (lambda path: path.mkdir(), "cannot be read"),
    "too large": (_huge, "it has more than 1048576 bytes"),
    "no UTF-8": (lambda path: path.write_bytes(b"\xff\xfe"), "utf-8"),
    "nested without end": (lambda path: path.write_text("x = " + "[" * 100_000), "is not TOML"),
}


@pytest.mark.parametrize("name", FILES)
def test_files_that_are_no_policy(name: str, tmp_path: Path) -> None:
    make, message = FILES[name]
    make(tmp_path / "policy.toml")
    with pytest.raises(PolicyError, match=message):
        read_policy_document(tmp_path / "policy.toml")


def test_what_is_read(tmp_path: Path) -> None:
    other = Pair()
    private, public = other.write(tmp_path)
    path = tmp_path / "policy.toml"
    tables = key_table(ACME, until="2030-06-30") + f'[[publishers.keys]]\nfile = "{public.name}"\n'
    path.write_text(policy(publisher("acme", ["legal", "a*"], tables), '[minimum]\nlegal = "1.2.0"'), "utf-8")
    terms = read_policy_document(path)
    assert (terms.require_signatures, dict(terms.minimum)) == (True, {"legal": "1.2.0"})
    (found,) = terms.publishers
    assert [key.id for key, _ in found.keys] == [ACME.id, other.id]
    assert found.keys[0][1].end == datetime(2030, 7, 1, tzinfo=UTC)  # the whole day is included
    private.unlink()  # verification needs only the public key
    assert read_policy_document(path) == terms
