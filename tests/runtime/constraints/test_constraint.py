"""Masks applied to logits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from lime_edge.runtime.constraints.constraint import restrict


@pytest.mark.parametrize("count", [0, 1, 5, 40, 63, 64])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_restrict(count: int, dtype: type[np.floating[Any]]) -> None:
    rng = np.random.default_rng(count)
    logits, allowed = rng.standard_normal(64).astype(dtype), np.zeros(64, np.bool_)
    allowed[rng.permutation(64)[:count]] = True
    expected = np.where(allowed, logits, -np.inf)
    restrict(logits, allowed)
    np.testing.assert_array_equal(logits, expected)
    assert logits.dtype == dtype
