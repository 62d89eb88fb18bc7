"""Generation settings: ranges, and the precedence of call, skill and default."""

from __future__ import annotations

from typing import Any

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
    assert "unknown setting 'beams'; expected one of max_new_tokens" in str(caught.value)


def test_the_call_wins_over_the_skill_and_the_skill_over_the_default() -> None:
    skill = {"temperature": 0.5, "top_k": 3, "stop": ("END",)}
    assert Options.settle({}, skill) == Options(temperature=0.5, top_k=3, stop=("END",))
    assert Options.settle({"temperature": 0, "stop": []}, skill) == Options(temperature=0, top_k=3)
    assert Options.settle({"stop": "now", "temperature": None}).stop == ("now",)
