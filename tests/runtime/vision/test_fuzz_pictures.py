"""A short run of the fuzzer of pictures; its checks find what they are for."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from lime_edge.errors import ConfigError
from tests.runtime.vision import fuzz_pictures
from tests.runtime.vision.fuzz_pictures import FindingError, Run, fuzz, mutated, seeds


@pytest.mark.filterwarnings("ignore")
def test_a_short_run() -> None:
    found = fuzz(300, 300, 10, seed=1)
    assert found["inputs"] == 610
    assert found["taken"] > 30
    assert set(found["refused"]) <= {"ConfigError", "ModelError"}
    assert sum(found["refused"].values()) > 150


def test_mutants_differ_and_repeat() -> None:
    files = seeds()
    made = [mutated(Random(seed), files[seed % len(files)]) for seed in range(60)]
    assert made == [mutated(Random(seed), files[seed % len(files)]) for seed in range(60)]
    assert sum(one != files[seed % len(files)] for seed, one in enumerate(made)) > 50


def test_findings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    run = Run(0)

    def refuses(random: Random, data: bytes) -> None:
        raise ConfigError("no")

    def breaks(random: Random, data: bytes) -> None:
        raise KeyError("x")

    run.one(refuses, b"a")
    assert run.refused["ConfigError"] == 1
    with pytest.raises(FindingError, match=r"finding-.*bin: KeyError"):
        run.one(breaks, b"b")
    monkeypatch.setattr(fuzz_pictures, "MEMORY", -1)
    with pytest.raises(FindingError, match="expected at most -1"):
        run.one(refuses, b"c")
    assert len(list(tmp_path.glob("finding-*.bin"))) == 2
