"""How long single calls take: percentiles of many calls, since what a user notices is the slow one.

Knows nothing of what is called.
"""

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
    """Microseconds of one kind of call.

    Attributes:
        engine: Whose.
        call: What was called.
        loaded: Skills or adapters that were loaded meanwhile.
        calls: How often.
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
        taken = 1e6 * np.asarray(seconds, np.float64)
        p50, p90, p99 = (float(value) for value in np.percentile(taken, [50, 90, 99]))
        return cls(engine, call, loaded, taken.size, p50, p90, p99, float(taken.max()))


def timed(call: Callable[..., Any], *arguments: Any) -> float:
    """Seconds of one call."""
    began = time.perf_counter()
    call(*arguments)
    return time.perf_counter() - began


def table(title: str, found: Sequence[Latency]) -> Table:
    """One line for each."""
    made = Table("engine", "call", "loaded", "p50", "p90", "p99", "highest", "calls", title=title, title_justify="left")
    for one in found:
        times = [_readable(value) for value in (one.p50, one.p90, one.p99, one.highest)]
        made.add_row(one.engine, one.call, f"{one.loaded:,}", *times, f"{one.calls:,}")
    return made


def _readable(microseconds: float) -> str:
    return f"{microseconds:.1f} us" if microseconds < 1000 else f"{microseconds / 1000:.2f} ms"
