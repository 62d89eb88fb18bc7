"""Large packages: read in bounded memory, with the same values and faults as small ones."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from lime_edge.contract.vector_kinds import KINDS
from lime_edge.errors import SkillMismatchError
from lime_edge.skills import lazy_vectors
from lime_edge.skills.compatibility import check_skill
from lime_edge.skills.package import describe, read_skill, write_skill
from tests.support.faults.malformed import CONTRACT, EXPERTS, TENSORS, Case, assert_refused, manifest, vectors

Dtype = Literal["i8", "f16"]


@pytest.mark.parametrize("dtype", ["i8", "f16"])
@pytest.mark.parametrize(("width", "count"), [(2**14, 160), (2**20 + 33, 3)])
def test_reading_a_large_package_takes_its_file_twice_at_most(
    tmp_path: Path, dtype: Dtype, width: int, count: int
) -> None:
    wide = {f"gain.m{m}": np.full((EXPERTS, width), m, np.float32) for m in range(count)}
    size = write_skill(tmp_path / "wide.lime", manifest(), wide, dtype).size
    tracemalloc.start()
    try:
        skill = read_skill(tmp_path / "wide.lime")
        with pytest.raises(SkillMismatchError, match="which the model does not have"):
            check_skill(skill, CONTRACT)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert size > 5 * 2**20
    assert peak <= 2 * size + 2**20
    for name, array in wide.items():
        np.testing.assert_allclose(skill.tensors[name], array, rtol=1e-3)


@pytest.mark.parametrize("dtype", ["i8", "f16"])
def test_a_large_package_is_read_as_a_small_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: Dtype) -> None:
    monkeypatch.setattr(lazy_vectors, "_PIECE", 32)  # rows of 40 are two pieces
    small = write_skill(tmp_path / "a.lime", manifest(), vectors(KINDS), dtype)
    monkeypatch.setattr(lazy_vectors, "EAGER_LIMIT", 0)
    read = read_skill(small.path)
    assert (read.manifest, read.shapes, list(read.tensors)) == (small.manifest, small.shapes, list(small.tensors))
    assert describe(read) == describe(small)
    for name, array in small.tensors.items():
        np.testing.assert_array_equal(read.tensors[name], array)
        assert not read.tensors[name].flags.writeable
    check_skill(read, CONTRACT)
    np.testing.assert_array_equal(CONTRACT.table.pack(read.tensors), CONTRACT.table.pack(small.tensors))
    assert f"{next(iter(small.tensors))}.scale" not in read.tensors


@pytest.mark.parametrize("case", TENSORS, ids=lambda case: case.name)
def test_large_packages_are_refused_with_the_same_reasons(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: Case
) -> None:
    monkeypatch.setattr(lazy_vectors, "EAGER_LIMIT", 0)
    assert_refused(tmp_path / "bad.lime", case)
