"""How many requests run together and how many may wait, and what an operator sees of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from numbers import Real
from typing import Any

from lime_edge.common.strict_json import show
from lime_edge.errors import ConfigError


@dataclass(frozen=True)
class SchedulerSettings:
    """Limits on the requests of one runtime.

    One request is always admitted if nothing else runs, so none waits for ever.

    Raises:
        ConfigError: Names every setting that is out of range.
    """

    rows: int = 32  # answers that are decoded together
    kv_bytes: int = 2**30  # keys and values of all rows together; one request alone may take more
    waiting: int | None = None  # requests that may wait for a row; None: no limit
    patience: float | None = None  # seconds that a request may wait for a row; None: no limit

    def __post_init__(self) -> None:
        faults = [
            f"{name} is {show(value)}; expected {'None or ' if optional else ''}a whole number from {low} to {high}"
            for name, value, optional, low, high in (
                ("rows", self.rows, False, 1, 4096),
                ("kv_bytes", self.kv_bytes, False, 1, 2**44),
                ("waiting", self.waiting, True, 0, 10**6),
            )
            if not (optional and value is None) and not _whole(value, low, high)
        ]
        if self.patience is not None and not _seconds(self.patience):
            faults.append(f"patience is {show(self.patience)}; expected None or seconds from 0 to 1000000000")
        if faults:
            raise ConfigError("the scheduler's settings are invalid", faults)


@dataclass(frozen=True)
class SchedulerStats:
    """What the scheduler does now, and totals since the model was loaded.

    `running_by_skill` and `waiting_by_skill` count requests by the skill's name: ``""`` is the base, and the names of a
    blend are joined by ``+``.
    """

    running: int  # requests that have a row
    waiting: int  # requests that wait for one
    rows: int  # the limit
    kv_used: int  # bytes reserved for keys and values
    kv_bytes: int  # the limit
    retry_after: float  # seconds after which a new request would probably get a row
    prompt_tokens: int = 0
    prefix_hits: int = 0  # prompt tokens that were copied, not read
    new_tokens: int = 0
    finished: Mapping[str, int] = field(default_factory=dict)  # by finish reason; also "error" and "overloaded"
    running_by_skill: Mapping[str, int] = field(default_factory=dict)
    waiting_by_skill: Mapping[str, int] = field(default_factory=dict)

    @property
    def prefix_queries(self) -> int:
        """Prompt tokens that were looked up in the prefix cache."""
        return self.prompt_tokens

    @property
    def kv_usage(self) -> float:
        """Share of the memory for keys and values that is reserved, from 0 to 1."""
        return min(1.0, self.kv_used / self.kv_bytes)


def _whole(value: Any, low: int, high: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _seconds(value: Any) -> bool:
    number = isinstance(value, Real) and not isinstance(value, bool)
    return number and math.isfinite(value) and 0 <= value <= 10**9
