"""What names a skill: validated, immutable, and returned as it was given."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from lime_edge.errors import ConfigError
from lime_edge.runtime.skills.skill_specs import frozen, parts_of, thawed
from lime_edge.runtime.types import ACTIVE


@pytest.mark.parametrize("spec", [None, "legal", {"legal": 0.5, "brief": -1.0}])
def test_there_and_back(spec: Any) -> None:
    made: Any = frozen(spec)
    assert hash(made) == hash(frozen(spec))
    assert made is not ACTIVE
    assert thawed(made) == spec


def test_a_blend_is_a_copy_with_numbers_of_python() -> None:
    given: Any = {"legal": np.float32(0.5), "brief": 1}
    made: Any = frozen(given)
    given["legal"] = 9
    assert made == (("legal", 0.5), ("brief", 1.0))
    assert [type(weight) for _, weight in made] == [float, float]
    assert thawed(made) is not thawed(made)


def test_parts() -> None:
    assert parts_of(None) == ()
    assert parts_of("legal") == (("legal", 1.0),)
    assert parts_of((("legal", 0.5),)) == (("legal", 0.5),)
    assert frozen(ACTIVE) is ACTIVE


@pytest.mark.parametrize("spec", [3, {}, ["legal"], b"legal"])
def test_what_is_no_spec(spec: Any) -> None:
    with pytest.raises(ConfigError, match="expected None, a name, or weights by name"):
        frozen(spec)


def test_every_fault_of_a_blend_is_named() -> None:
    with pytest.raises(ConfigError) as caught:
        frozen({"a": True, "b": float("inf"), "c": "1", "d": 10**400, 5: 1.0, "e": np.float16(1)})
    assert len(caught.value.faults) == 5
