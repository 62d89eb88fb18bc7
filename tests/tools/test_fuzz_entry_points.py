"""Two thousand calls of the entry points, or as many as LIME_FUZZ_CASES says, and proof that faults are found."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest

from lime_edge.errors import ConfigError
from lime_edge.runtime import Runtime
from tests.support.runtime_models import exported, skill
from tests.tools.fuzz_entry_points import EntryPoints, FindingError, fuzz

CASES = int(os.environ.get("LIME_FUZZ_CASES", "2000"))


def test_only_lime_errors_escape() -> None:
    tally = fuzz(CASES, 1)
    assert tally.cases >= CASES
    assert tally.answered.keys() >= {"generate", "stream", "choose", "tokens", "use_skill", "load_skill"}
    assert tally.answered.total() >= CASES / 4  # not every call fails at its first check


@pytest.fixture(scope="module")
def points() -> EntryPoints:
    return EntryPoints()


def _raises(error: Exception) -> Callable[..., Any]:
    def generate(*_: Any, **__: Any) -> None:
        raise error

    return generate


def _keeps_a_row(self: Runtime, *_: Any, **__: Any) -> None:
    self.load_skill(skill(exported(), "more"))


@pytest.mark.parametrize(
    ("broken", "finding"),
    [
        (_raises(KeyError("x")), "KeyError escapes from generate"),
        (_raises(ConfigError("x" * 30_000)), "the message of ConfigError has 30000 bytes"),
        (_keeps_a_row, r"generate leaves \d rows of the bank in use"),
    ],
)
def test_a_broken_runtime_is_found(
    points: EntryPoints, monkeypatch: pytest.MonkeyPatch, broken: Callable[..., Any], finding: str
) -> None:
    monkeypatch.setattr(Runtime, "generate", broken)
    with pytest.raises(FindingError, match=finding):
        points.check("generate", {"prompt": "x"})
