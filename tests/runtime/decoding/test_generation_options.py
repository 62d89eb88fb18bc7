"""Generation settings: ranges, and the precedence of call, skill and default."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from lime_edge.errors import ConfigError
from lime_edge.runtime.decoding.generation_options import Options


def test_every_fault_of_the_settings_at_once() -> None:
    call: dict[str, Any] = {
        "max_new_tokens": 0,
        "temperature": -1,
        "top_k": 1.5,
        "top_p": float("nan"),
        "repetition_penalty": "high",
        "seed": True,
        "stop": ["", "x"],
        "beams": 4,
    }
    with pytest.raises(ConfigError) as caught:
        Options.settle(call)
    assert len(caught.value.faults) == len(call)
    assert "temperature is -1; expected a number from 0 to 10" in caught.value.faults
    assert "unknown setting 'beams'; expected one of " in str(caught.value)


def test_values_of_any_size_are_refused_in_short() -> None:
    numbers: list[Any] = [10**400, -(10**5000), np.bool_(True), np.arange(3), "9" * 10**6]
    for name in ("max_new_tokens", "temperature", "top_k", "top_p", "repetition_penalty", "seed"):
        for value in numbers:
            with pytest.raises(ConfigError, match=f"{name} is") as caught:
                Options.settle({name: value})
            assert len(str(caught.value)) < 1000
    stops: list[Any] = [["x" * 10**6] * 17, b"x" * 10**6, [10**5000]]
    for stop in stops:
        with pytest.raises(ConfigError, match="stop is") as caught:
            Options.settle({"stop": stop})
        assert len(str(caught.value)) < 1000


def test_numbers_of_numpy_are_numbers() -> None:
    call = {"max_new_tokens": np.int8(3), "top_k": np.uint64(5), "seed": np.int64(2), "temperature": np.float32(0.5)}
    found = Options.settle({**call, "top_p": Fraction(1, 2)})
    assert found == Options(max_new_tokens=3, top_k=5, seed=2, temperature=0.5, top_p=0.5)
    assert {type(getattr(found, name)) for name in call} == {int, float}


def test_the_call_wins_over_the_skill_and_the_skill_over_the_default() -> None:
    skill = {"temperature": 0.5, "top_k": 3, "stop": ("END",)}
    assert Options.settle({}, skill) == Options(temperature=0.5, top_k=3, stop=("END",))
    assert Options.settle({"temperature": 0, "stop": []}, skill) == Options(temperature=0, top_k=3)
    assert Options.settle({"stop": "now", "temperature": None}).stop == ("now",)
