"""The file of statistics: the same bytes for the same statistics, and nothing malformed is read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lime_edge.common.digests import canonical_json
from lime_edge.errors import ModelError
from lime_edge.skills.route_statistics import RouteStatistics, read_statistics, write_statistics
from lime_edge.skills.safetensors_file import pack

RNG = np.random.default_rng(0)
STATISTICS = RouteStatistics(
    3,
    "last",
    2.0,
    -1.5,
    RNG.standard_normal(8).astype(np.float32),
    RNG.standard_normal((4, 8)).astype(np.float32),
    RNG.standard_normal((5, 8)).astype(np.float32),
)


def test_written_and_read_back(tmp_path: Path) -> None:
    path = tmp_path / "route.safetensors"
    made = write_statistics(path, STATISTICS)
    found, digest = read_statistics(path)
    assert digest == sha256(path.read_bytes()).hexdigest()
    assert (found.layer, found.pooling, found.temperature, found.threshold) == (3, "last", 2.0, -1.5)
    for name in ("mean", "whitening", "none"):
        given, read = getattr(STATISTICS, name), getattr(found, name)
        np.testing.assert_array_equal(read, given.astype(np.float16).astype(np.float32))
        np.testing.assert_array_equal(read, getattr(made, name))
    assert found.settings(digest).statistics == digest
    assert found.width == 8
    assert found.reference is not None
    np.testing.assert_array_equal(found.reference, found.mean)  # if there is none
    before = path.read_bytes()
    write_statistics(path, found)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"layer": -1}, "the metadata.layer is -1"),
        ({"temperature": 0.0}, "the metadata.temperature is 0.0"),
        ({"mean": np.ones(7, np.float32)}, "none is [5, 8]; expected at most [1024, 16384], as wide as the mean"),
        ({"whitening": np.full((4, 8), np.inf, np.float32)}, "whitening contains numbers that are not finite"),
    ],
)
def test_nothing_invalid_is_written(tmp_path: Path, change: dict[str, Any], fault: str) -> None:
    with pytest.raises(ModelError, match="make the statistics of the checkpoint again") as caught:
        write_statistics(tmp_path / "a", replace(STATISTICS, **change))
    assert fault in "\n".join(caught.value.faults)
    assert not list(tmp_path.iterdir())


META = canonical_json(
    {"format": 1, "layer": 1, "pooling": "last", "temperature": 1.0, "texts": [], "threshold": 0.0}
).decode()
ONES = np.ones((1, 4), np.float16)


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (lambda: b"", "0 bytes with a header"),
        (lambda: pack({}, {"mean": ONES}), "Expecting value"),
        (
            lambda: pack({"route": META}, {"mean": ONES}),
            "the tensors are ['mean']; expected mean, none, ref",
        ),
        (lambda: pack({"route": META.replace('"last"', '"x"')}, {"mean": ONES}), "the metadata.pooling is 'x'"),
        (lambda: STATISTICS.to_bytes()[:-1], "the file is cut short"),
    ],
)
def test_malformed_files_are_refused(tmp_path: Path, data: Callable[[], bytes], fault: str) -> None:
    (tmp_path / "a").write_bytes(data())
    with pytest.raises(ModelError) as caught:
        read_statistics(tmp_path / "a")
    assert fault in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"cannot be read: No such file.*expected the statistics of states"):
        read_statistics(tmp_path / "none")


@given(st.integers(0, len(STATISTICS.to_bytes()) - 1), st.integers(0, 255))
def test_a_changed_byte_gives_statistics_or_an_error(tmp_path_factory: Any, place: int, value: int) -> None:
    data = bytearray(STATISTICS.to_bytes())
    data[place] = value
    path = tmp_path_factory.getbasetemp() / "changed"
    path.write_bytes(data)
    try:
        found, _ = read_statistics(path)
    except ModelError:
        return
    assert np.isfinite(found.mean).all()
