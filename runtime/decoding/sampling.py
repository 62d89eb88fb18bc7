"""From logits to a token: repetition penalty, temperature, top-k, top-p, and a seeded draw.

Every row has its own sampler and its own random numbers, so that a row draws the same alone and in
any batch. For the same reason rows of one call that share prompt, skill and seed draw the same
answer. A vocabulary is large and a step is short: logits are copied, converted and sorted only where
they can matter. Knows nothing of models or text.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from lime_edge.errors import ModelError

from .generation_options import Options

Float64 = npt.NDArray[np.float64]
Ids = npt.NDArray[np.int64]
Logits = npt.NDArray[np.floating]

_BLOCK = 256  # weights that are summed first when a token is drawn
_GROUPS = 16  # maxima to look at for every token that top-k keeps


class Sampler:
    """Picks the tokens of one row.

    Args:
        options: temperature, top_k, top_p, repetition_penalty and seed.
        prompt_ids: What the repetition penalty counts as said before.
    """

    def __init__(self, options: Options, prompt_ids: Sequence[int] | Ids) -> None:
        self._options = options
        self._seen = np.unique(np.asarray(prompt_ids, np.int64)) if options.repetition_penalty != 1 else None
        self._random = np.random.default_rng(options.seed) if options.temperature > 0 else None

    def __call__(self, logits: Logits) -> int:
        """Pick one token.

        Args:
            logits: [V], writable; as before when this returns.

        Raises:
            ModelError: The logits are not numbers.
        """
        seen = self._seen
        if seen is None:
            return self._pick(logits)
        said = logits[seen]
        logits[seen] = penalised(said, self._options.repetition_penalty)
        try:
            token = self._pick(logits)
        finally:
            logits[seen] = said
        if token not in seen:
            self._seen = np.append(seen, token)
        return token

    def _pick(self, logits: Logits) -> int:
        token = int(logits.argmax())
        if not math.isfinite(logits[token]):  # argmax finds NaN and +inf first, -inf only if all are
            raise ModelError("the graph's logits are not finite: try fp32, or export again")
        return token if self._random is None else draw(logits, self._options, self._random.random())


def penalised(said: Logits, penalty: float) -> Logits:
    """Logits of tokens said before, less likely (CTRL, arXiv 1909.05858): the positive / penalty, others * penalty."""
    return np.where(said > 0, said / penalty, said * penalty)


def draw(logits: Logits, options: Options, uniform: float) -> int:
    """The token at `uniform`, in [0, 1), of the distribution that is left after top-k, then top-p.

    Tokens tied with the last one kept are kept too. The order of the distribution is that of the ids.
    """
    ids = likeliest(logits, options.top_k) if 0 < options.top_k < len(logits) else None
    weights = (logits if ids is None else logits[ids]).astype(np.float64)  # [n]
    weights /= options.temperature
    weights -= weights.max()
    np.exp(weights, out=weights)
    if options.top_p < 1:
        kept = nucleus(weights, options.top_p)
        ids, weights = kept if ids is None else ids[kept], weights[kept]
    at = _index(weights, uniform)
    return at if ids is None else int(ids[at])


def likeliest(logits: Logits, count: int) -> Ids:
    """Ids of the `count` highest logits and of those tied with the lowest of them, rising.

    The highest of `count` groups are so many logits, so that the lowest of these is a bound: only what
    is above it is sorted out. Finding it is one pass; sorting the whole vocabulary is many.
    """
    groups = min(_GROUPS * count, 2**10)
    if groups <= count or groups * 2 > len(logits):
        return np.flatnonzero(logits >= np.partition(logits, -count)[-count])
    whole = len(logits) // groups * groups
    maxima = logits[:whole].reshape(-1, groups).max(axis=0)  # [groups]; what is left over is not needed for a bound
    some = np.flatnonzero(logits >= np.partition(maxima, -count)[-count])
    found = logits[some]
    ids: Ids = some[found >= np.partition(found, -count)[-count]]
    return ids


def nucleus(weights: Float64, share: float) -> Ids:
    """Indices of the fewest weights that make up `share` of all, and of those tied with the lowest, rising.

    What is below (1 - share) / n of the sum is not among them: all of that together is too little to be missed.
    """
    total = weights.sum()
    some = np.flatnonzero(weights >= (1 - share) / len(weights) * total)
    falling = np.sort(weights[some])[::-1]
    last = min(int(np.searchsorted(falling.cumsum(), share * total)), len(falling) - 1)
    kept: Ids = some[weights[some] >= falling[last]]
    return kept


def _index(weights: Float64, uniform: float) -> int:
    """Where the running sum first exceeds `uniform` of the sum: by blocks, then inside of one."""
    blocks = np.add.reduceat(weights, np.arange(0, len(weights), _BLOCK)).cumsum()
    target = uniform * blocks[-1]
    block = min(int(np.searchsorted(blocks, target, side="right")), len(blocks) - 1)
    inside = weights[block * _BLOCK : (block + 1) * _BLOCK]
    before = blocks[block - 1] if block else 0.0
    at = int(np.searchsorted(inside.cumsum(), target - before, side="right"))
    if at == len(inside):  # rounding
        at = int(np.flatnonzero(inside)[-1])
    return block * _BLOCK + at
