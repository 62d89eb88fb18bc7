"""Scores given answers by their probability; the prompt runs once for all of them.

The score of a choice is log P(its tokens, then the end-of-turn token | prompt), which training on that answer
maximises. Consecutive prompts share the run of their common beginning (same tokens with the same skills). All runs have
at least two tokens, so every score equals that of a full forward pass over prompt and choice, bit for bit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from lime_edge.errors import ConfigError
from lime_edge.runtime.model.session import Graph
from lime_edge.runtime.skills.bank import Array
from lime_edge.runtime.skills.registry import AppliedSkill
from lime_edge.runtime.text.prompts import Text, Tokens

from .kv_cache import Cache, Ids
from .loop import skill_rows

Float64 = npt.NDArray[np.float64]


def encode_choices(choices: Any, text: Text) -> dict[str, Ids]:
    """Tokens of every choice, including the end-of-turn token.

    Raises:
        ConfigError: Names every invalid choice.
    """
    if isinstance(choices, str) or not isinstance(choices, Sequence) or not choices:
        raise ConfigError(f"choices is {choices!r:.80}; expected a list of texts")
    faults = [f"{choice!r:.60}; expected text" for choice in choices if not isinstance(choice, str) or not choice]
    if not faults and len(set(choices)) < len(choices):
        faults.append(f"{list(choices)!r:.200}; expected each choice only once")
    if faults:
        raise ConfigError("the choices are invalid", faults)
    return {choice: np.array([*text.encode(choice), text.end_id], np.int64) for choice in choices}


def score_prompts(
    graph: Graph,
    bank: Array,
    prompts: Sequence[tuple[Tokens, AppliedSkill]],
    choices: Mapping[str, Ids],
    best_only: bool,
) -> Iterator[dict[str, float]]:
    """Score every choice after every prompt.

    Args:
        graph: The graph to run.
        bank: [N, P], pinned by the caller.
        prompts: The tokens and the skill of each prompt.
        choices: From `encode_choices`.
        best_only: Skip choices that can no longer win.

    Yields:
        Per prompt: choice -> log-probability.

    Raises:
        ConfigError: A prompt and its longest choice do not fit into the context.
    """
    longest = max(len(ids) for ids in choices.values())
    capacity = max(len(tokens.ids) for tokens, _ in prompts) + longest
    cache = Cache(graph, bank, 1, capacity)
    for tokens, applied in prompts:
        yield _score(cache, tokens, applied, choices, best_only)


def _score(
    cache: Cache, tokens: Tokens, applied: AppliedSkill, choices: Mapping[str, Ids], best_only: bool
) -> dict[str, float]:
    logits, _ = cache.prefill(0, tokens.ids, skill_rows(tokens, applied))
    first = log_softmax(logits)  # [V]
    scores: dict[str, float] = {}
    # In descending order of the first token: further tokens only lower a score, so a choice whose first token scores
    # below the best complete score cannot win.
    for label, ids in sorted(choices.items(), key=lambda item: -first[item[1][0]]):
        if best_only and scores and first[ids[0]] <= max(scores.values()):
            continue
        scores[label] = float(first[ids[0]]) + _rest(cache, tokens, applied, ids)
    return {label: scores[label] for label in choices if label in scores}


def _rest(cache: Cache, tokens: Tokens, applied: AppliedSkill, ids: Ids) -> float:
    """Log-probability of all tokens of a choice except the first. The cache still holds the prompt afterwards."""
    if len(ids) == 1:
        return 0.0
    inputs, size = ids[:-1], len(tokens.ids)
    if len(inputs) == 1 and size > 1:  # a run of one token would use another kernel
        inputs = np.concatenate([tokens.ids[-1:], inputs])
    start = size - (len(inputs) - len(ids) + 1)
    cache.rewind(0, start)
    logits = cache.extend(0, inputs, np.full(len(inputs), applied.skill_id))[1 - len(ids) :]  # [n - 1, V]
    cache.rewind(0, size)
    return float(sum(log_softmax(row)[token] for row, token in zip(logits, ids[1:], strict=True)))


def log_softmax(logits: Array) -> Float64:
    """[V] -> [V], in float64."""
    shifted = logits.astype(np.float64) - logits.max()
    result: Float64 = shifted - np.log(np.exp(shifted).sum())
    return result


def probabilities(scores: Mapping[str, float]) -> dict[str, float]:
    """Softmax over scores: the probability of each choice, given that the answer is one of them."""
    top = max(scores.values())
    weights = {label: float(np.exp(score - top)) for label, score in scores.items()}
    total = sum(weights.values())
    return {label: weight / total for label, weight in weights.items()}
