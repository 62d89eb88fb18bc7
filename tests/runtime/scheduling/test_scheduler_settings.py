"""Limits are checked together; figures follow from one another."""

from __future__ import annotations

from typing import Any

import pytest

from lime_edge.errors import ConfigError
from lime_edge.runtime.scheduling.scheduler_settings import SchedulerSettings, SchedulerStats


def test_all_faults_are_named_at_once() -> None:
    bad: Any = {"rows": 0, "kv_bytes": 1.5, "waiting": -1, "patience": float("nan")}
    with pytest.raises(ConfigError, match="scheduler's settings are invalid") as caught:
        SchedulerSettings(**bad)
    assert [fault.split(" is ")[0] for fault in caught.value.faults] == list(bad)
    assert "rows is 0; expected a whole number from 1 to 4096" in caught.value.faults[0]
    assert "waiting is -1; expected None or a whole number" in caught.value.faults[2]


def test_the_largest_and_the_smallest_are_allowed() -> None:
    SchedulerSettings(1, 1, 0, 0)
    SchedulerSettings(4096, 2**44, 10**6, 10.0**9)


def test_shares() -> None:
    stats = SchedulerStats(1, 2, 3, kv_used=50, kv_bytes=200, retry_after=1.0, prompt_tokens=7)
    assert (stats.kv_usage, stats.prefix_queries) == (0.25, 7)
    assert (
        SchedulerStats(1, 0, 3, kv_used=500, kv_bytes=200, retry_after=1.0).kv_usage == 1
    )  # one request may exceed it
