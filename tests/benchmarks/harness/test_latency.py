"""Percentiles of single calls."""

from __future__ import annotations

import pytest

from benchmarks.harness.latency import Latency


def test_percentiles() -> None:
    found = Latency.of("us", "call", 7, [1e-6 * number for number in range(1, 102)])
    assert (found.calls, found.loaded) == (101, 7)
    assert [found.p50, found.p90, found.p99, found.highest] == pytest.approx([51, 91, 100, 101])
