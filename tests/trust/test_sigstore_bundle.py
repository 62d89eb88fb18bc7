"""Signature bundles: what is parsed, and the reasons why a signature is not valid for a file.

tests/support/faults/attacks.py has a table of refused bundles; test_policy.py runs it against a runtime.
"""

from __future__ import annotations

import hashlib
import json

import pytest

from lime_edge.errors import SkillTrustError
from lime_edge.trust.signature_file import SIGNATURE_LIMIT
from lime_edge.trust.sigstore_bundle import Bundle
from tests.support.signatures import bundle, pair, statement

ACME = pair("acme")
DATA = b"the bytes of a package"
VALID = bundle(ACME, statement(DATA, "legal.lime"))


def test_a_bundle_is_parsed_without_being_verified() -> None:
    parsed = Bundle.parse(VALID)
    assert parsed.key_id == ACME.id
    assert json.loads(parsed.payload) == statement(DATA, "legal.lime")
    forged = json.loads(VALID)
    forged["dsseEnvelope"]["signatures"][0]["sig"] = "AAAA"
    assert Bundle.parse(json.dumps(forged).encode()).faults(ACME.public, DATA, "legal.lime") != []


@pytest.mark.parametrize("file", ["legal.lime", f"{hashlib.sha256(DATA).hexdigest()}.lime", None])
def test_the_name_is_the_signed_one_or_the_hash_or_missing(file: str | None) -> None:
    assert Bundle.parse(VALID).faults(ACME.public, DATA, file) == []


def test_faults_of_bytes_and_name_are_reported_together() -> None:
    faults = Bundle.parse(VALID).faults(ACME.public, DATA + b"x", "other.lime")
    assert len(faults) == 2
    assert "over a file with SHA-256" in faults[0]
    assert "signed as 'legal.lime', the file is called 'other.lime'" in faults[1]


def test_another_key_hides_all_later_faults() -> None:
    """A statement is not parsed before its signature is verified."""
    faults = Bundle.parse(bundle(ACME, b"not JSON")).faults(pair("other").public, DATA, "legal.lime")
    assert faults == [f"the signature names the key {ACME.id[:12]}, not {pair('other').id[:12]}"]


def test_a_bundle_over_the_limit_is_not_parsed() -> None:
    padded = VALID + b" " * (SIGNATURE_LIMIT + 1 - len(VALID))
    with pytest.raises(SkillTrustError, match="it has 65537 bytes; expected at most 65536"):
        Bundle.parse(padded)
    assert Bundle.parse(padded[:-1]) == Bundle.parse(VALID)
