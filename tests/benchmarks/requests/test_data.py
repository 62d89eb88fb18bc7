"""Requests with and without what their prompts share, and whether answers have the form that was asked for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.requests.data import Request, parses, requests_of


def test_a_request_is_asked_whole_and_bare(tmp_path: Path) -> None:
    rows = [{"prompt": f"Answer the question.\n\nIs it {word}?\nAnswer:", "answer": "yes"} for word in ("so", "not")]
    path = tmp_path / "test.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    found = requests_of("task", path, 2)
    assert len(found) == 2
    for one in found:
        assert one.full.startswith("Answer the question.")
        assert one.bare in one.full
        assert "Answer" not in one.bare
    assert len(requests_of("task", path, 1)) == 1
    assert len(requests_of("task", path, None)) == 2


@pytest.mark.parametrize(
    ("text", "answer", "choices", "expected"),
    [
        ("yes", "no", ["yes", "no"], True),
        ("yes!", "no", ["yes", "no"], False),
        ('{"a": 1}', '{"a": 2}', None, True),
        ('{"a": 1', '{"a": 2}', None, False),
        ("[1]", '{"a": 2}', None, False),
        ("ls -l", "ls", None, None),
    ],
)
def test_parses(text: str, answer: str, choices: list[str] | None, expected: bool | None) -> None:
    assert parses(text, Request("task", "", "", answer), choices) is expected
