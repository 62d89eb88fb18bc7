"""The benchmark of decoding on a tiny model: its groups of variants. No test depends on times."""

from __future__ import annotations

from pathlib import Path

from benchmarks.speed.decode import main as decode
from tests.benchmarks.support.speed_runs import compared, variants


def test_decode_runs_on_a_tiny_model(tmp_path: Path) -> None:
    sizes = {"contexts": "8", "rounds": 2, "steps": 1, "rows": 3, "banks": "1,5", "answers": 2, "tokens": 4}
    found = compared(decode, tmp_path, operators="none", openings=2, **sizes)
    groups = {group["what"]["part"]: group for group in found["groups"]}
    assert list(groups) == ["skill", "bank", "rows", "runtime"]
    assert variants(groups["skill"]) == [
        "untouched",
        "base, nothing fed (function)",
        "base, skill 0 fed (function)",
        "one skill (function)",
    ]
    assert variants(groups["bank"]) == ["one skill of 1", "one skill of 5", "another of 5 every step"]
    assert variants(groups["rows"]) == [
        "untouched",
        "base (function)",
        "one skill (function)",
        "3 skills (function)",
    ]
    assert list(groups["rows"]["figures"][-1]["ratios"]) == ["untouched", "one skill (function)"]
    assert variants(groups["runtime"])[1:] == ["Runtime, base (function)", "Runtime, one skill (function)"]
    assert groups["runtime"]["rounds"] == 4  # two in each opening
    assert all(group["what"]["context"] == 8 for group in groups.values())
    assert found["settings"] == {
        "threads": 1,
        "spin": None,
        "openings": 2,
        "rounds": 2,
        "steps": 1,
        "rows": 3,
        "banks": [1, 5],
        "answers": 2,
        "tokens": 4,
    }
