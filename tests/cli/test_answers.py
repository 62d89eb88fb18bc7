"""The file of `--answers`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lime_edge.cli.answers import read_answers
from lime_edge.errors import ConfigError

SCHEMA = {"type": "object", "properties": {"b": {"type": "string"}, "a": {"type": "string"}}}


@pytest.mark.parametrize(
    ("document", "kind", "value"),
    [
        (["yes", "no"], "choices", ("yes", "no")),
        (SCHEMA, "schema", json.dumps(SCHEMA)),
        ({"kind": "regex", "value": "[0-9]+"}, "regex", "[0-9]+"),
        ({"kind": "schema", "value": SCHEMA}, "schema", json.dumps(SCHEMA)),
        ({"kind": "text", "value": None}, "text", None),
    ],
)
def test_a_schema_a_list_or_a_form(document: Any, kind: str, value: Any, tmp_path: Path) -> None:
    path = tmp_path / "answers.json"
    path.write_text(json.dumps(document), "utf-8")
    found = read_answers(path)
    assert (found.kind, found.value) == (kind, value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON that can be used"),
        ("3", "expected a JSON schema, or a list of choices"),
        ("[]", "does not say what answers look like"),
        ('{"kind": "song", "value": ""}', "kind is 'song'"),
        ("[" + " " * 2**20 + "]", "more than 1048576 bytes"),
    ],
    ids=["cut", "number", "empty", "kind", "large"],
)
def test_what_cannot_be_used_is_said(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "answers.json"
    path.write_text(text, "utf-8")
    with pytest.raises(ConfigError) as caught:
        read_answers(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.json cannot be read"):
        read_answers(tmp_path / "none.json")
