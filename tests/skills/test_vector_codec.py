"""Vectors in int8 and F16: error bounds of quantising, and dequantising in batches."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from lime_edge.skills import vector_codec
from lime_edge.skills.vector_codec import BLOCK, decode_vectors, dequantise, encode_vectors, in_batches, quantise

FUZZ = settings(max_examples=300, deadline=None, derandomize=True, database=None)

_FLOATS = st.floats(-60_000, 60_000, width=32) | st.floats(-(2.0**-20), 2.0**-20, width=32) | st.floats(-2, 2, width=32)


@FUZZ
@given(hnp.arrays(np.float32, st.tuples(st.integers(1, 3), st.integers(1, 70)), elements=_FLOATS))
def test_int8_is_off_by_at_most_half_a_scale(values: np.ndarray[Any, np.dtype[np.float32]]) -> None:
    q, scale = quantise(values)
    back = dequantise(q, scale)
    step = np.repeat(scale.astype(np.float64), BLOCK, axis=1)[:, : values.shape[1]]
    smallest = 2.0**-24  # of F16: below half of it a value is zero
    assert np.all(np.abs(back - values) <= np.maximum(step, smallest) / 2)
    assert np.all(np.abs(q) <= 127)
    for row, block in np.ndindex(scale.shape):
        part = values[row, block * BLOCK : (block + 1) * BLOCK]
        least = np.abs(part).max() / 127
        assert scale[row, block] <= least * (1 + 2**-10) + smallest
        assert (scale[row, block] == 0) == (not q[row, block * BLOCK : (block + 1) * BLOCK].any())


@pytest.mark.parametrize("together", [1, 128, 2**18])
@pytest.mark.parametrize("dtype", ["i8", "f16"])
def test_vectors_restored_together_are_those_restored_alone(
    monkeypatch: pytest.MonkeyPatch, dtype: str, together: int
) -> None:
    monkeypatch.setattr(vector_codec, "_TOGETHER", together)
    rng = np.random.default_rng(0)
    widths = {"a": 32, "b": 40, "c": 31, "d": 32, "e": 40}
    made = {
        f"{kind}.{module}": rng.standard_normal((2, width)).astype(np.float32)
        for module, width in widths.items()
        for kind in ("expert", "gain")
    }
    stored = encode_vectors(made, dtype)
    found = decode_vectors(stored)
    assert found.valid
    assert found.values.keys() == made.keys()
    assert len(in_batches(stored)) == {1: 10, 128: 8, 2**18: 6}[together]
    for name, value in found.values.items():
        alone = dequantise(stored[name], stored[f"{name}.scale"]) if dtype == "i8" else stored[name].astype(np.float32)
        np.testing.assert_array_equal(value, alone)
        assert not value.flags.writeable
    for kind, peak in found.peaks.items():
        assert peak == max(np.abs(value).max() for name, value in found.values.items() if name.startswith(kind))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_numbers_that_break_a_rule_are_seen_in_any_batch(monkeypatch: pytest.MonkeyPatch, bad: float) -> None:
    monkeypatch.setattr(vector_codec, "_TOGETHER", 80)  # two tensors in a batch
    for dtype, kept in (("i8", ".scale"), ("f16", "")):
        stored = encode_vectors({f"gain.m{number}": np.ones((2, 20), np.float32) for number in range(5)}, dtype)
        for number in range(5):
            name = f"gain.m{number}{kept}"
            broken = stored[name].copy()
            broken[1, 0] = bad
            assert decode_vectors(stored).valid
            assert not decode_vectors(stored | {name: broken}).valid
