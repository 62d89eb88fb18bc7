"""From logits to a token: repetition penalty, temperature, top-k, top-p, and a seeded draw.

Every row has its own sampler and its own random numbers, so that a row draws the same alone and in
any batch. For the same reason rows of one call that share prompt, skill and seed draw the same
answer. Knows nothing of models or text.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from ..errors import ModelError
from .options import Options

Float64 = npt.NDArray[np.float64]
Logits = npt.NDArray[np.floating]


class Sampler:
    """Picks the tokens of one row.

    Args:
        options: temperature, top_k, top_p, repetition_penalty and seed.
        prompt_ids: What the repetition penalty counts as said before.
    """

    def __init__(self, options: Options, prompt_ids: Iterable[int]) -> None:
        self._options = options
        self._seen = set(prompt_ids)
        self._random = np.random.default_rng(options.seed) if options.temperature > 0 else None

    def __call__(self, logits: Logits) -> int:
        """Pick one token.

        Args:
            logits: [V]; not changed.

        Raises:
            ModelError: The logits are not numbers.
        """
        if self._options.repetition_penalty != 1.0:
            logits = penalised(logits, np.fromiter(self._seen, np.int64), self._options.repetition_penalty)
        token = int(logits.argmax())
        if not np.isfinite(logits[token]):  # argmax finds NaN and +inf first, -inf only if all are
            raise ModelError("the graph's logits are not finite: try fp32, or export again")
        if self._random is not None:
            token = draw(logits, self._options, self._random.random())
        self._seen.add(token)
        return token


def penalised(logits: Logits, seen: npt.NDArray[np.int64], penalty: float) -> Logits:
    """Make tokens seen before less likely (CTRL, arXiv 1909.05858): positive logits / penalty, others * penalty."""
    changed = logits.copy()
    said = changed[seen]
    changed[seen] = np.where(said > 0, said / penalty, said * penalty)
    return changed


def draw(logits: Logits, options: Options, uniform: float) -> int:
    """The token at `uniform`, in [0, 1), of the distribution that is left after top-k, then top-p.

    Tokens tied with the last one kept are kept too. The order of the distribution is that of the ids.
    """
    ids, prob = distribution(logits, options)
    total = prob.cumsum()
    return int(ids[min(np.searchsorted(total, uniform * total[-1], side="right"), len(ids) - 1)])


def distribution(logits: Logits, options: Options) -> tuple[npt.NDArray[np.int64], Float64]:
    """Token ids left and their probabilities, [n] and [n]; not renormalised after top-p."""
    ids = np.arange(len(logits))
    if 0 < options.top_k < len(logits):
        kth = np.partition(logits, -options.top_k)[-options.top_k]
        ids = np.flatnonzero(logits >= kth)
    scaled = logits[ids].astype(np.float64) / options.temperature
    prob = np.exp(scaled - scaled.max())
    prob /= prob.sum()
    if options.top_p < 1:
        falling = np.sort(prob)[::-1]
        last = min(int(np.searchsorted(falling.cumsum(), options.top_p)), len(falling) - 1)
        kept = prob >= falling[last]
        ids, prob = ids[kept], prob[kept]
    return ids, prob
