"""Blends: weighted sums of skills in rows of their own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from lime_edge.errors import (
    LimeError,
    UnknownSkillError,
)
from lime_edge.runtime import Runtime
from lime_edge.skills.package import read_skill
from tests.support.runtime_models import answer_ids, exported, runtime, skill


@pytest.fixture
def made() -> Runtime:
    return runtime(exported(), "legal", "brief")


def test_blends(made: Runtime) -> None:
    assert answer_ids(made, skill={"legal": 1.0}) == answer_ids(made, skill="legal")
    assert answer_ids(made, skill={"legal": 1.0, "brief": 0.0}) == answer_ids(made, skill="legal")
    assert answer_ids(made, skill={"legal": 0.0}) == answer_ids(made, skill=None)
    asked: Any = {"legal": 0.5, "brief": 0.5}
    made.use_skill(asked)
    asked["legal"] = 0.75  # changing the caller's dictionary has no effect
    assert made.active_skill == {"legal": 0.5, "brief": 0.5}
    answer = made.generate("Hello", max_new_tokens=6)
    assert [(part["name"], part["weight"]) for part in answer.receipt["skills"]] == [("legal", 0.5), ("brief", 0.5)]
    assert answer.token_ids == answer_ids(made, skill={"legal": 0.5, "brief": 0.5})
    assert made._bank.in_use == 4  # the base, two skills and one blend
    made.use_skill(None)
    assert made._bank.in_use == 3
    answer_ids(made, skill=asked)
    with pytest.raises(UnknownSkillError):
        made.generate(["a", "b"], skill=[asked, "nope"])
    assert made._bank.in_use == 3
    assert answer_ids(made, skill=asked) == answer_ids(made, skill=asked)


def test_a_blend_is_the_weighted_way_from_neutral(made: Runtime) -> None:
    """Missing rank gates count as 1, all other missing vectors as 0."""
    table = made.contract.table
    neutral = table.pack({})
    legal, brief = (table.pack(read_skill(info.path).tensors) for info in made.skills())
    with made._registry.lease([{"legal": 0.5, "brief": -0.25}]) as lease:
        row = lease.array[lease.applied[0].row].reshape(neutral.shape[0] * lease.applied[0].experts, -1)
        np.testing.assert_allclose(row, neutral + 0.5 * (legal - neutral) - 0.25 * (brief - neutral), atol=1e-6)


def test_blends_that_cannot_be(made: Runtime) -> None:
    made.load_skill(skill(exported(), "always", activation="always"))
    for blend, message in (
        ({"legal": 1.0, "always": 1.0}, "different activation cannot be blended"),
        ({"legal": 1e6}, "expert reaches .* at most 16 is allowed"),
        ({"legal": 1.0, "nope": 1.0}, "no skill named 'nope'; loaded skills: 'legal', 'brief', 'always'"),
        ({"legal": "much"}, "weight of 'legal' is 'much'"),
        ({1: 1.0}, "1 is not a name"),
    ):
        with pytest.raises(LimeError, match=message):
            made.use_skill(blend)  # type: ignore[arg-type]
    assert made.active_skill is None
    assert made._bank.in_use == 4
