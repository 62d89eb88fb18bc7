"""Receipts: the check and the JSON Schema in docs accept and refuse the same documents."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import jsonschema
import pytest

from lime_edge.contract.receipt import receipt_faults
from tests.support.paths import ROOT

SCHEMA = json.loads((ROOT / "docs" / "receipt.schema.json").read_text("utf-8"))
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
SKILL = {"name": "legal", "version": "1.0.0", "digest": "a" * 64, "generation": 1, "signer": None, "weight": 1.0}
RECEIPT: dict[str, Any] = {
    "skills": [SKILL],
    "activation": "always",
    "backbone": "b" * 64,
    "adapter": "c" * 64,
    "graph": "d" * 64,
    "precision": "int4",
    "tokens": {"prompt": 5, "reused": 1, "new": 3, "drafted": 0, "accepted": 0},
    "switches": [{"after_tokens": 2, "seconds": 0.5, "skills": []}],
    "past": [[SKILL]],
    "route": {"probabilities": {"legal": 0.75}, "none": 0.25, "why": "legal is the likeliest, 75%", "seconds": 0.1},
}


def test_the_schema_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("without", [(), ("tokens",), ("tokens", "switches", "past", "route")])
def test_receipts_are_accepted_by_both(without: tuple[str, ...]) -> None:
    document = {key: value for key, value in RECEIPT.items() if key not in without}
    assert receipt_faults(document) == []
    assert VALIDATOR.is_valid(document)


FAULTS: list[tuple[Callable[[Any], object], str]] = [
    (lambda d: d.pop("graph"), "the receipt lacks the key 'graph'"),
    (lambda d: d.update(other=1), "the receipt has the unknown key 'other'"),
    (lambda d: d.update(backbone="B" * 64), "the receipt.backbone is 'BBBB"),
    (lambda d: d.update(activation="never"), "the receipt.activation is 'never'"),
    (lambda d: d.update(precision="int8"), "the receipt.precision is 'int8'"),
    (lambda d: d["skills"][0].update(digest="x"), "the receipt.skills[0].digest is 'x'"),
    (lambda d: d["skills"][0].update(signer="me"), "the receipt.skills[0].signer is 'me'"),
    (lambda d: d["tokens"].update(new=-1), "the receipt.tokens.new is -1"),
    (lambda d: d["switches"][0].update(seconds=-1), "the receipt.switches[0].seconds is -1"),
    (lambda d: d["past"].append([1]), "the receipt.past[1][0] is 1"),
    (lambda d: d["route"].update(none=1.5), "the receipt.route.none is 1.5"),
    (lambda d: d["route"]["probabilities"].update(shell="x"), "the receipt.route.probabilities['shell'] is 'x'"),
]


@pytest.mark.parametrize(("change", "fault"), FAULTS)
def test_other_documents_are_refused_by_both(change: Callable[[Any], object], fault: str) -> None:
    document = copy.deepcopy(RECEIPT)
    change(document)
    assert any(found.startswith(fault) for found in receipt_faults(document)), receipt_faults(document)
    assert not VALIDATOR.is_valid(document)


def test_anything_else_is_refused() -> None:
    documents: tuple[object, ...] = (None, [], "x", 5)
    for document in documents:
        assert receipt_faults(document)
        assert not VALIDATOR.is_valid(document)
