"""How likely the tokens of an answer were, and which tokens were likelier.

Log-probabilities are those of the model: the softmax of its logits, before penalties, temperature and constraints.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from lime_edge.runtime.types import TokenLogprob

from .sampling import likeliest

Logits = npt.NDArray[np.floating]


class Logprobs(list[TokenLogprob]):
    """The log-probabilities of one row's tokens, as it grows.

    Args:
        count: How many of the likeliest tokens are kept beside each.
    """

    def __init__(self, count: int) -> None:
        super().__init__()
        self._count = count
        self._logits = np.empty(0)  # [V] of the next token

    def before(self, logits: Logits) -> None:
        """Take the logits [V] of the next token, before anything changes them."""
        self._logits = logits.astype(np.float64)

    def taken(self, token: int) -> None:
        """Append the token that was chosen."""
        logits = self._logits
        total = _log_sum(logits)
        ids = likeliest(logits, min(self._count, len(logits))) if self._count else np.empty(0, np.int64)
        first = ids[np.argsort(-logits[ids], kind="stable")][: self._count]  # without what is tied with the last
        top = tuple((int(one), float(logits[one] - total)) for one in first)
        self.append(TokenLogprob(token, float(logits[token] - total), top))


def _log_sum(logits: Logits) -> float:
    """log(sum(exp(logits)))."""
    highest = float(logits.max())
    return highest + math.log(float(np.exp(logits - highest).sum()))
