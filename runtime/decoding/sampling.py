"""Samples a token from logits: penalties, temperature, top-k, top-p and a seeded draw.

Each row has its own sampler and random numbers, so it draws the same tokens alone and in any batch. For the same
reason, rows of one call with the same prompt, skill and seed get the same answer. Vocabularies are large and steps are
short, so only the logits that can matter are copied, converted and sorted.
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

_BLOCK = 256  # weights per block; a draw first searches the sums of blocks
_GROUPS = 16  # groups per token that top-k keeps


class Sampler:
    """Samples the tokens of one row.

    Args:
        options: temperature, top_k, top_p, the three penalties and seed.
        prompt_ids: Tokens that the repetition penalty counts as already used.
    """

    def __init__(self, options: Options, prompt_ids: Sequence[int] | Ids) -> None:
        self._options = options
        repeated, counted = options.repetition_penalty != 1, options.frequency_penalty or options.presence_penalty
        self._seen = None  # the tokens with a penalty, [n]
        if repeated or counted:
            self._seen = np.unique(np.asarray(prompt_ids if repeated else (), np.int64))
            self._counts = np.zeros(len(self._seen))  # how often each occurs in the answer, [n]
        self._random = np.random.default_rng(options.seed) if options.temperature > 0 else None

    def __call__(self, logits: Logits) -> int:
        """Pick one token.

        Args:
            logits: [V], writable; restored before this returns.

        Raises:
            ModelError: The logits are not finite.
        """
        seen = self._seen
        if seen is None:
            return self._pick(logits)
        original = logits[seen]
        logits[seen] = self._penalised(original)
        try:
            token = self._pick(logits)
        finally:
            logits[seen] = original
        if token not in seen:
            self._seen, self._counts = np.append(seen, token), np.append(self._counts, 0)
        self._counts[self._seen == token] += 1
        return token

    def _penalised(self, logits: Logits) -> Logits:
        """The logits [n] of the tokens seen, after all penalties."""
        options = self._options
        lowered = penalised(logits, options.repetition_penalty) if options.repetition_penalty != 1 else logits
        return lowered - options.frequency_penalty * self._counts - options.presence_penalty * (self._counts > 0)

    def _pick(self, logits: Logits) -> int:
        token = int(logits.argmax())
        if not math.isfinite(logits[token]):  # argmax prefers NaN, then +inf; -inf only if all are
            raise ModelError("the graph's logits are not finite: try fp32, or export again")
        return token if self._random is None else draw(logits, self._options, self._random.random())


def penalised(logits: Logits, penalty: float) -> Logits:
    """Repetition penalty (CTRL, arXiv 1909.05858): positive logits are divided by it, others multiplied."""
    return np.where(logits > 0, logits / penalty, logits * penalty)


def draw(logits: Logits, options: Options, uniform: float) -> int:
    """Draw a token after top-k, then top-p: the one where the cumulative distribution, by id, exceeds `uniform`.

    Tokens tied with the last one kept are kept, too.

    Args:
        logits: [V].
        options: temperature, top_k and top_p.
        uniform: A random number in [0, 1).
    """
    ids = likeliest(logits, options.top_k) if 0 < options.top_k < len(logits) else None
    weights = (logits if ids is None else logits[ids]).astype(np.float64)  # [n]
    weights -= weights.max()  # before the division, which can overflow: then to -inf, the weight 0
    with np.errstate(over="ignore"):
        weights /= options.temperature
    np.exp(weights, out=weights)
    if options.top_p < 1:
        kept = nucleus(weights, options.top_p)
        ids, weights = kept if ids is None else ids[kept], weights[kept]
    at = _index(weights, uniform)
    return at if ids is None else int(ids[at])


def likeliest(logits: Logits, count: int) -> Ids:
    """Ids, ascending, of the `count` highest logits and of those tied with the lowest of them.

    At least `count` logits reach the `count`-th highest maximum of disjoint groups. One pass finds this lower bound;
    only logits that reach it are partitioned, not the whole vocabulary.
    """
    groups = min(_GROUPS * count, 2**10)
    if groups <= count or groups * 2 > len(logits):
        return np.flatnonzero(logits >= np.partition(logits, -count)[-count])
    whole = len(logits) // groups * groups
    maxima = logits[:whole].reshape(-1, groups).max(axis=0)  # [groups]; the bound does not need the remainder
    some = np.flatnonzero(logits >= np.partition(maxima, -count)[-count])
    found = logits[some]
    ids: Ids = some[found >= np.partition(found, -count)[-count]]
    return ids


def nucleus(weights: Float64, share: float) -> Ids:
    """Indices, ascending, of the fewest weights that sum to `share` of the total, and of those tied with the lowest.

    Weights below (1 - share) / n of the total are never among them, because together they sum to less than 1 - share.
    """
    total = weights.sum()
    some = np.flatnonzero(weights >= (1 - share) / len(weights) * total)
    falling = np.sort(weights[some])[::-1]
    last = min(int(np.searchsorted(falling.cumsum(), share * total)), len(falling) - 1)
    kept: Ids = some[weights[some] >= falling[last]]
    return kept


def _index(weights: Float64, uniform: float) -> int:
    """Index where the cumulative sum first exceeds `uniform` of the total: find the block, then the index in it."""
    blocks = np.add.reduceat(weights, np.arange(0, len(weights), _BLOCK)).cumsum()
    target = uniform * blocks[-1]
    block = min(int(np.searchsorted(blocks, target, side="right")), len(blocks) - 1)
    inside = weights[block * _BLOCK : (block + 1) * _BLOCK]
    before = blocks[block - 1] if block else 0.0
    at = int(np.searchsorted(inside.cumsum(), target - before, side="right"))
    if at == len(inside):  # because of rounding
        at = int(np.flatnonzero(inside)[-1])
    return block * _BLOCK + at
