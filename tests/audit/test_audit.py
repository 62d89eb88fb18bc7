"""Which packages an audit compares a skill with; the command itself is tested in tests/cli/test_audit.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from lime_edge.audit.audit import packages
from lime_edge.errors import DataError
from tests.support.cli_models import exported as cli_model
from tests.support.cli_models import facts
from tests.support.runtime_models import exported, skill


def test_packages_without_golden_prompts_and_of_other_models(tmp_path: Path) -> None:
    found = facts(
        "audit", skill(exported(), "bare"), "--model", exported(), "--against", skill(exported(), "other"),
        "--against", cli_model()[0] / "skills",
    )  # fmt: skip
    assert found["triggers"] is None
    assert [one["name"] for one in found["vectors"]["known"]] == ["other"]
    assert len(found["vectors"]["left_out"]) == 1


def test_a_folder_stands_for_the_packages_in_it(tmp_path: Path) -> None:
    for name in ("b.lime", "a.lime", "notes.txt"):
        (tmp_path / name).write_bytes(b"")
    assert packages([tmp_path, tmp_path / "b.lime"]) == [tmp_path / name for name in ("a.lime", "b.lime", "b.lime")]
    with pytest.raises(DataError, match=r"(?s)none: expected.*nor: expected"):
        packages([tmp_path / "none", tmp_path, tmp_path / "nor"])
