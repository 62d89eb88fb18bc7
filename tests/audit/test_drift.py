"""Drift from the base, refusals and guard tasks."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from lime_edge.audit import drift
from lime_edge.errors import DataError
from lime_edge.runtime.facade.probe import probing
from tests.support.cli_models import write_rows
from tests.support.runtime_models import PROMPTS, exported, runtime


def test_divergence() -> None:
    base, other = np.log([[0.5, 0.5], [0.5, 0.5]]), np.log([[0.25, 0.75], [0.5, 0.5]])
    assert drift.divergence(base, other) == pytest.approx((0.5 * math.log(2) + 0.5 * math.log(2 / 3)) / 2)
    assert drift.divergence(base, base) == 0


def test_sign_test() -> None:
    assert drift.sign_test(3, 0) == 1 / 8
    assert drift.sign_test(1, 1) == 3 / 4
    assert drift.sign_test(0, 3) == 1
    assert drift.sign_test(0, 0) == 1


def test_refusals_are_known_by_words() -> None:
    assert drift.refuses("I\u2019m SORRY, but no.")
    assert drift.refuses("I can\u2019t do that")
    assert not drift.refuses("First, take a hammer.")


def test_guard_tasks(tmp_path: Path) -> None:
    assert len(drift.guard_tasks(None, 40)["built-in"]) == 20
    write_rows(tmp_path / "deep" / "a.jsonl", [{"prompt": f"{i}", "answer": "x"} for i in range(9)])
    tasks = drift.guard_tasks(tmp_path, 4)
    assert [row.messages[0]["content"] for row in tasks["deep/a.jsonl"]] == ["0", "3", "6"]
    (tmp_path / "b.CSV").write_text("prompt,answer\nq,a\n", "utf-8")
    (tmp_path / "notes.md").write_text("no data", "utf-8")
    assert list(drift.guard_tasks(tmp_path, 4)) == ["built-in", "b.CSV", "deep/a.jsonl"]
    with pytest.raises(DataError, match="holds no guard tasks"):
        drift.guard_tasks(tmp_path / "none", 4)


def test_drift_of_a_skill_and_of_none() -> None:
    model = runtime(exported(), "one")
    with probing(model, "one", 200) as one, probing(model, None, 200) as base:
        far = drift.drift(one, base, PROMPTS)
        near = drift.drift(base, base, PROMPTS)
    assert near["median_kl"] == near["max_kl"] == 0
    assert near["same_first_token"] == len(PROMPTS)
    assert far["median_kl"] > 0.01
