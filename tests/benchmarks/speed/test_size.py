"""Sizes of adapter files: values and other bytes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from benchmarks.speed.size import _sizes, _skills, _stored
from lime_edge import read_skill
from tests.support.runtime_models import exported, skill


def test_bytes_of_a_file_are_split_into_values_and_the_rest(tmp_path: Path) -> None:
    path = tmp_path / "file.safetensors"
    save_file({"a": np.zeros((5, 7), np.int8), "b": np.zeros(3, np.float32)}, path)
    rest, stored = _stored(path)
    assert (path.stat().st_size - rest, stored) == (5 * 7 + 4 * 3, "I8")


def test_a_skill_is_measured_with_its_vectors_in_float16() -> None:
    path = skill(exported(), "legal")  # stored in float16
    (row,) = _skills([path])
    assert row["bytes"] == row["float16_bytes"] == path.stat().st_size
    assert row["values"] == sum(array.size for array in read_skill(path).tensors.values())


def test_packages_are_measured_with_all_their_files(tmp_path: Path) -> None:
    (tmp_path / "package" / "inner").mkdir(parents=True)
    (tmp_path / "package" / "inner" / "data").write_bytes(b"12345")
    (tmp_path / "module.py").write_bytes(b"123")
    assert _sizes(tmp_path) == {"package": 5, "module.py": 3}
