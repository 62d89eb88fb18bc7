"""Validation of a training plan."""

from __future__ import annotations

from typing import Any

import pytest

from lime_edge.errors import ConfigError
from lime_edge.training.plan import TrainingPlan


def test_every_fault_of_a_plan_is_listed() -> None:
    wrong: dict[str, Any] = {
        "steps": 0,
        "batch": 1.5,
        "save_every": True,
        "seed": -1,
        "vector_rate": -1e-3,
        "shared_rate": float("nan"),
        "weight_decay": "no",
        "warmup": 1.5,
        "vector_scales": {"gain": -1.0, "gian": 2.0},
        "minutes": 0,
        "optimizer": "sgd",
    }
    with pytest.raises(ConfigError) as caught:
        TrainingPlan(**wrong)
    assert list(dict.fromkeys(fault.split()[0] for fault in caught.value.faults)) == list(wrong)
    assert "vector_scales has 'gian'; expected expert, gain, shift, rank, shared, gate" in caught.value.faults
