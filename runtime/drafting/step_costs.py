"""What a step of several tokens costs, relative to a step of one."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from lime_edge.errors import ConfigError

# SmolLM2-135M, int4, AVX-512, 256 tokens of context: tokens in a step -> time relative to one.
_ONE_THREAD = {1: 1.0, 2: 1.25, 3: 1.45, 4: 1.62, 5: 1.83, 6: 2.0, 8: 2.37, 12: 3.11, 16: 3.89}
_TWO_THREADS = {1: 1.0, 2: 1.2, 3: 1.38, 4: 1.52, 5: 1.66, 6: 1.82, 8: 2.15, 12: 2.76, 16: 3.45}


class StepCosts:
    """Cost of a step by its number of tokens, interpolated; beyond the last entry the last slope goes on.

    Args:
        measured: Tokens in a step -> time, in any unit.

    Raises:
        ConfigError: Names every entry that is out of range, or says that 1 or a second entry is missing.
    """

    def __init__(self, measured: Mapping[int, float]) -> None:
        faults = [
            f"{tokens} tokens cost {cost}; expected 1 to 1024 tokens and a positive cost"
            for tokens, cost in measured.items()
            if not (1 <= tokens <= 1024 and 0 < cost < math.inf)
        ]
        if 1 not in measured or len(measured) < 2:
            faults.append(f"costs of {sorted(measured)} tokens; expected 1 and at least one more")
        if faults:
            raise ConfigError("the costs of steps are invalid", faults)
        tokens = sorted(measured)
        costs = [measured[count] / measured[1] for count in tokens]
        self._costs: list[float] = np.interp(np.arange(1, tokens[-1] + 1), tokens, costs).tolist()
        self._slope = (costs[-1] - costs[-2]) / (tokens[-1] - tokens[-2])

    @classmethod
    def of_threads(cls, threads: int | None) -> StepCosts:
        """The measured costs of an int4 model on a CPU; None, and more than two threads, are taken as two."""
        return cls(_ONE_THREAD if threads == 1 else _TWO_THREADS)

    def __call__(self, tokens: int) -> float:
        """Cost of a step of `tokens` >= 1 tokens; 1.0 for one."""
        beyond = tokens - len(self._costs)
        return self._costs[tokens - 1] if beyond <= 0 else self._costs[-1] + beyond * self._slope
