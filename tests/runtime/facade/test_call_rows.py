"""Rows of a call: prompts and skills are paired, and numbers that do not match are refused."""

from __future__ import annotations

from typing import Any

import pytest

from lime_edge.errors import ConfigError
from lime_edge.runtime.facade.call_rows import split_rows

MESSAGES = [{"role": "user", "content": "a"}]


@pytest.mark.parametrize(
    ("prompt", "skill", "rows"),
    [
        ("a", "x", (["a"], ["x"], True)),
        (MESSAGES, None, ([MESSAGES], [None], True)),
        (["a"], "x", (["a"], ["x"], False)),
        (["a", MESSAGES], "x", (["a", MESSAGES], ["x", "x"], False)),
        (["a", "b"], ["x", None], (["a", "b"], ["x", None], False)),
        (MESSAGES, ["x", {"y": 0.5}], ([MESSAGES, MESSAGES], ["x", {"y": 0.5}], False)),
    ],
)
def test_prompts_and_skills_are_paired(prompt: Any, skill: Any, rows: Any) -> None:
    assert tuple(split_rows(prompt, skill)) == rows


@pytest.mark.parametrize(
    ("prompt", "skill", "message"),
    [
        ([], "x", "there is no prompt"),
        (["a", "b"], ["x"], "1 skills for 2 prompts; expected one for each or one for all"),
        ("a", [], "0 skills"),
    ],
)
def test_numbers_must_match(prompt: Any, skill: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        split_rows(prompt, skill)
