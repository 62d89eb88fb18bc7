"""`lime-edge compare` gives the figures of the runtime."""

from __future__ import annotations

from pathlib import Path

import pytest

from lime_edge.runtime import Runtime
from tests.support.cli_models import data, facts, fails


def test_compare(model: Path, skill: Path) -> None:
    short = ("--max-new-tokens", "4", "--rows", "3")
    found = facts("compare", model, data(), "--skill", "odd", *short)
    assert (found["rows"], len(found["texts"]), found["against"]) == (3, 3, None)
    assert found["divergence"] > 0
    assert 0 <= found["agreement"] <= 1
    runtime = Runtime.load(model)
    runtime.load_skill(skill)
    first, other = found["texts"][0]
    texts = {runtime.generate(f"Say {n}", "odd", max_new_tokens=4).text for n in range(6)}
    texts |= {runtime.generate(f"Is {n} even?", "odd", max_new_tokens=4).text for n in range(6)}
    assert first in texts
    assert other
    same = facts("compare", model, data(), "--skill", "odd", "--against", "odd", *short)
    assert same["divergence"] == pytest.approx(0, abs=1e-9)
    assert (same["agreement"], same["same_text"]) == (1, 1)


def test_what_cannot_be_compared(model: Path) -> None:
    assert "auto is no skill to compare" in fails("compare", model, data(), "--skill", "auto")
    assert "no skill named 'nobody'" in fails("compare", model, data(), "--skill", "odd", "--against", "nobody")
