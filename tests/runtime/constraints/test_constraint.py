"""Masks applied to logits, and drafts followed without a trace."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from lime_edge.runtime.constraints.constraint import follow, restrict
from tests.support.runtime_models import tiny_text

from .walks import constraint


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


@pytest.mark.parametrize("answers", [["yes", "yes and no"], {"type": "object", "properties": {"a": {"type": "null"}}}])
def test_follow_a_draft(answers: object) -> None:
    text, row = tiny_text(), constraint(answers)
    draft = [*text.encode("yes" if isinstance(answers, list) else '{"a": null}'), text.end_id]
    before = row.allowed()
    masks = follow(row, [*draft, 5])
    assert len(masks) == len(draft) + 1
    assert all(mask[token] for mask, token in zip(masks, draft, strict=False))
    assert not masks[-1].any()
    assert len(follow(row, [draft[0], 319, draft[1]])) == 2
    np.testing.assert_array_equal(row.allowed(), before)
    for mask, token in zip(masks, draft, strict=False):
        np.testing.assert_array_equal(row.allowed(), mask)
        row.accept(token)
    assert row.done
