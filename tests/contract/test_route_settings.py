"""Settings of the choice of a skill: written to lime.json and read back, and every fault named."""

from __future__ import annotations

from typing import Any

import pytest

from lime_edge.contract.route_settings import RouteSettings
from lime_edge.errors import ConfigError

SETTINGS = RouteSettings(15, "last", 2.5, -3.0, "0" * 64)


def test_to_a_dict_and_back() -> None:
    assert RouteSettings.from_dict(SETTINGS.to_dict()) == SETTINGS


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"layer": -1}, "route.layer is -1; expected a whole number from 0 to 1000"),
        ({"pooling": "first"}, "route.pooling is 'first'; expected one of mean, last"),
        ({"temperature": 0}, "route.temperature is 0; expected a number from 0.001"),
        ({"threshold": float("nan")}, "route.threshold is nan; expected a number"),
        ({"statistics": "../a"}, "route.statistics is '../a'; expected a SHA-256"),
        ({"other": 1}, "route has the unknown key 'other'"),
    ],
)
def test_faults_are_named(change: dict[str, Any], fault: str) -> None:
    with pytest.raises(ConfigError, match="cannot be used") as caught:
        RouteSettings.from_dict(SETTINGS.to_dict() | change)
    assert [found for found in caught.value.faults if found.startswith(fault)]


def test_all_faults_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        RouteSettings.from_dict({"layer": "1"})
    assert len(caught.value.faults) == 5
