"""Scores whole choices after a prompt that was read: log P(tokens of the choice, end of turn included | prompt).

All runs have at least two tokens, so every score equals that of a full forward pass over prompt and choice, bit for
bit, where the prompt was read in such runs, too.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from .kv_cache import Array, Cache, Ids

Float64 = npt.NDArray[np.float64]


def score_steps(
    cache: Cache,
    row: int,
    prompt: Ids,
    skill_id: int,
    logits: Array,
    choices: Mapping[str, Sequence[int] | Ids],
    best_only: bool,
    doubt: float = 0.0,
) -> Generator[None, None, dict[str, float]]:
    """Score choices; the row of the cache holds the prompt before and afterwards.

    Args:
        cache: With room for the longest choice behind the prompt.
        row: The row that holds the prompt.
        prompt: Its tokens, [S].
        skill_id: The skill of the answer.
        logits: After the prompt, [V].
        choices: Label -> tokens, with the end of turn.
        best_only: Skip choices that can no longer win.
        doubt: Return one choice with the score of its first token, without a run, if the first tokens of all others
            have less than this share of its probability.

    Yields:
        Before every run of the graph.

    Returns:
        Label -> log-probability, in the order of `choices`.
    """
    first = log_softmax(logits)
    # A choice is at most as likely as its first token, less the choices known to begin with the same.
    left = {int(ids[0]): math.exp(first[ids[0]]) for ids in choices.values()}
    scores: dict[str, float] = {}
    if (sure := _without_doubt(first, choices, doubt)) is not None:
        return {sure: float(first[choices[sure][0]])}
    for label, ids in sorted(choices.items(), key=lambda item: -first[item[1][0]]):
        begin = int(ids[0])
        if best_only and scores and left[begin] <= math.exp(max(scores.values())):
            continue
        rest = 0.0
        if len(ids) > 1:
            yield
            rest = _rest(cache, row, prompt, skill_id, ids)
        scores[label] = float(first[begin]) + rest
        left[begin] -= math.exp(scores[label])
    return {label: scores[label] for label in choices if label in scores}


def _without_doubt(first: Float64, choices: Mapping[str, Sequence[int] | Ids], doubt: float) -> str | None:
    """The choice whose first token, which no other begins with, leaves all others at most this share of doubt."""
    likely = {label: math.exp(first[ids[0]]) for label, ids in choices.items()}
    best = max(likely, key=likely.__getitem__)
    others = {choices[label][0] for label in choices if label != best}
    if choices[best][0] in others or sum(math.exp(first[token]) for token in others) >= doubt * likely[best]:
        return None
    return best


def _rest(cache: Cache, row: int, prompt: Ids, skill_id: int, ids: Sequence[int] | Ids) -> float:
    """Log-probability of all tokens of a choice except the first."""
    inputs, size = np.asarray(ids[:-1], np.int64), len(prompt)
    if len(inputs) == 1 and size > 1:  # a run of one token would use another kernel
        inputs = np.concatenate([prompt[-1:], inputs])
    start = size - (len(inputs) - len(ids) + 1)
    cache.rewind(row, start)
    logits = cache.extend(row, inputs, np.full(len(inputs), skill_id))[1 - len(ids) :]  # [n - 1, V]
    cache.rewind(row, size)
    return float(sum(log_softmax(some)[token] for some, token in zip(logits, ids[1:], strict=True)))


def log_softmax(logits: Array) -> Float64:
    """[V] -> [V], in float64."""
    shifted = logits.astype(np.float64) - logits.max()
    result: Float64 = shifted - np.log(np.exp(shifted).sum())
    return result
