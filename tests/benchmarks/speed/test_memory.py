"""The benchmark of memory and starts on a tiny model: its stages and counts."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmarks.speed import memory
from tests.benchmarks.support.speed_runs import measured
from tests.support.runtime_models import exported, skill


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_and_starts_are_measured(tmp_path: Path) -> None:
    found = measured(memory.main, tmp_path, "--loaded", "1,3", "--starts", "1", "--mapped")
    assert [one["skills"] for one in found["memory"]["loaded"]] == [1, 3]
    assert all(0 < one["private"] < one["all"] for one in found["memory"]["loaded"])
    numbers = 2 * (256 + 256 + 128)  # two layers; of q and o every kind, of up the gain, padded
    assert found["memory"]["bytes_of_a_skill_in_the_bank"] == 3 * numbers * 4  # of three experts
    stages = found["starts"]["until"]
    assert list(stages) == ["Python", "import", "Runtime.load", "load_skill", "first token"]
    for how in ("cold", "warm"):
        times = [stage[how]["median"] for stage in stages.values()]
        assert times == sorted(times)
    assert (tmp_path / "mapped" / "mapped.json").is_file()


def test_what_cannot_be_measured_is_said(tmp_path: Path) -> None:
    model = exported()
    words = [str(model), str(skill(model, "legal")), "--work", str(tmp_path), "--loaded", "0"]
    done = CliRunner().invoke(memory.main, words)
    assert done.exit_code == 2
    assert "expected whole numbers of 1 or more" in " ".join(done.output.split())
