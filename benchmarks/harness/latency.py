"""Latency of single calls, as percentiles: users notice the slow calls, not the average."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.table import Table


@dataclass(frozen=True)
class Latency:
    """Percentiles of one kind of call, in microseconds.

    Attributes:
        engine: The engine that was called.
        call: Name of the call.
        loaded: Number of skills or adapters loaded at the time.
        calls: Number of calls.
    """

    engine: str
    call: str
    loaded: int
    calls: int
    p50: float
    p90: float
    p99: float
    highest: float

    @classmethod
    def of(cls, engine: str, call: str, loaded: int, seconds: npt.ArrayLike) -> Latency:
        """From the seconds of every call."""
        taken = 1e6 * np.asarray(seconds, np.float64)
        p50, p90, p99 = (float(value) for value in np.percentile(taken, [50, 90, 99]))
        return cls(engine, call, loaded, taken.size, p50, p90, p99, float(taken.max()))


def timed(call: Callable[..., Any], *arguments: Any) -> float:
    """Make one call and return the seconds it took."""
    began = time.perf_counter()
    call(*arguments)
    return time.perf_counter() - began


def table(title: str, latencies: Sequence[Latency]) -> Table:
    """A terminal table with one row for each latency."""
    made = Table("engine", "call", "loaded", "p50", "p90", "p99", "highest", "calls", title=title, title_justify="left")
    for latency in latencies:
        times = [_readable(value) for value in (latency.p50, latency.p90, latency.p99, latency.highest)]
        made.add_row(latency.engine, latency.call, f"{latency.loaded:,}", *times, f"{latency.calls:,}")
    return made


def _readable(microseconds: float) -> str:
    return f"{microseconds:.1f} us" if microseconds < 1000 else f"{microseconds / 1000:.2f} ms"
