from __future__ import annotations

import math

import pytest

from lime_edge.errors import ConfigError
from lime_edge.runtime.drafting.step_costs import StepCosts


def test_costs_are_interpolated_and_go_on_with_the_last_slope() -> None:
    costs = StepCosts({1: 2.0, 2: 3.0, 4: 4.0})
    assert [costs(tokens) for tokens in (1, 2, 3, 4, 5, 8)] == [1, 1.5, 1.75, 2, 2.25, 3]


@pytest.mark.parametrize("threads", [None, 1, 2, 8])
def test_measured_costs(threads: int | None) -> None:
    costs = StepCosts.of_threads(threads)
    assert costs(1) == 1
    assert costs(8) == (2.37 if threads == 1 else 2.15)
    assert all(costs(tokens) < costs(tokens + 1) < costs(tokens) + 1 for tokens in range(1, 40))


def test_every_fault_is_named() -> None:
    with pytest.raises(ConfigError) as caught:
        StepCosts({0: 1.0, 2: math.nan, 3: -1.0, 2000: 5.0})
    assert len(caught.value.faults) == 5
    with pytest.raises(ConfigError, match="at least one more"):
        StepCosts({1: 1.0})
