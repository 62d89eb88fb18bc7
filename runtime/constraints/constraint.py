"""What a constraint is to the decoding loop, and how its mask is applied.

One constraint belongs to one row and follows its answer token by token.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Mask = npt.NDArray[np.bool_]  # [V], True where the token is allowed


class Constraint(Protocol):
    """The state of one row's answer. Not for use by several threads at once."""

    @property
    def complete(self) -> bool:
        """The answer may end here: end-of-turn tokens are allowed."""

    @property
    def done(self) -> bool:
        """An end-of-turn token was accepted; no token is allowed any more."""

    def allowed(self) -> Mask:
        """The tokens that may come next: a new array [V]."""

    def forced(self) -> list[int]:
        """The tokens that must come next, maybe none; the last one may be the end of turn.

        As long as tokens are forced, `allowed` allows nothing else: whether they are taken at once or sampled one by
        one, the answer is the same.
        """

    def accept(self, token: int) -> None:
        """Append a token that `allowed` allows."""

    def rollback(self, count: int) -> None:
        """Take back the last `count` accepted tokens; every later mask is as if they had not been accepted."""


def restrict(logits: npt.NDArray[np.floating[Any]], allowed: Mask) -> None:
    """Set the logits [V] of tokens that are not allowed to -inf, in place."""
    if np.count_nonzero(allowed) > len(allowed) // 8:
        np.copyto(logits, -np.inf, where=~allowed)
    else:  # several times faster when few are allowed
        ids = np.flatnonzero(allowed)
        kept = logits[ids]
        logits.fill(-np.inf)
        logits[ids] = kept
