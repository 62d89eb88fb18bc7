"""A short, reproducible fuzzing run, and proof that the fuzzer detects broken code."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lime_edge.runtime import Runtime
from lime_edge.runtime.skills.registry import Registry
from lime_edge.skills import package
from tests.support.faults.malformed import valid_package
from tests.tools.fuzz import FindingError, Harness, fuzz_reader, fuzz_runtime, live_runtime


def test_mutants_in_the_reader(tmp_path: Path) -> None:
    tally = fuzz_reader(400, 1, tmp_path)
    assert tally.inputs == 400
    assert tally.taken >= 5
    assert tally.refused["SkillFormatError"] >= 300


@pytest.fixture(scope="module")
def live() -> tuple[Runtime, list[Path]]:
    return live_runtime()


def test_mutants_in_a_runtime(tmp_path: Path, live: tuple[Runtime, list[Path]]) -> None:
    tally = fuzz_runtime(200, 1, tmp_path, *live)
    assert tally.inputs == 200
    assert tally.taken >= 2
    assert tally.refused.total() >= 150


def _raise(*_: Any) -> Iterator[str]:
    raise KeyError("x")


def _eat(*_: Any) -> Iterator[str]:
    np.zeros(2**23)
    return iter(())


def _nothing(*_: Any) -> Iterator[str]:
    return iter(())


@pytest.mark.parametrize(
    ("broken", "finding"),
    [(_raise, "KeyError escapes"), (_eat, "bytes of memory"), (_nothing, "the digest does not match")],
)
def test_a_broken_reader_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: Any, finding: str) -> None:
    monkeypatch.setattr(package, "_seal_faults", broken)
    damaged = valid_package()[:-1] + bytes([valid_package()[-1] ^ 1])
    with Harness(tmp_path) as harness, pytest.raises(FindingError, match=finding):
        harness.judge(damaged)


def test_a_runtime_that_forgets_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, live: tuple[Runtime, list[Path]]
) -> None:
    runtime, packages = live

    def admit(self: Registry, name: str, *_: Any) -> None:
        self._skills = {loaded: applied for loaded, applied in self._skills.items() if loaded != "brief"}

    monkeypatch.setattr(Registry, "admit", admit)
    with pytest.raises(FindingError, match="the state of the runtime changed"):
        fuzz_runtime(60, 1, tmp_path, runtime, packages)
