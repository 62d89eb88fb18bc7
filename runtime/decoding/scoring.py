"""Scores given answers by their probability; the prompt runs once for all of them.

The score of a choice is log P(its tokens, then the end-of-turn token | prompt), which training on that answer
maximises. What a prompt has in common with an earlier one (same tokens with the same skills) does not run again. All
runs have at least two tokens, and only positions of such runs are reused, so every score equals that of a full forward
pass over prompt and choice, bit for bit.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from lime_edge.common.strict_json import bounded, show
from lime_edge.errors import ConfigError
from lime_edge.runtime.model.session import Graph
from lime_edge.runtime.skills.bank import Array
from lime_edge.runtime.skills.registry import AppliedSkill
from lime_edge.runtime.text.prompts import Text, Tokens

from .choice_scores import score_steps
from .control import Control
from .kv_cache import Cache, Ids
from .loop import skill_rows
from .prefix_cache import PrefixCache


def encode_choices(choices: Any, text: Text) -> dict[str, Ids]:
    """Tokens of every choice, including the end-of-turn token.

    Raises:
        ConfigError: Names every invalid choice.
    """
    if isinstance(choices, str) or not isinstance(choices, Sequence) or not choices:
        raise ConfigError(f"choices is {show(choices)}; expected a list of texts")
    faults = [f"{show(choice)}; expected text" for choice in choices if not isinstance(choice, str) or not choice]
    if not faults:
        counts = Counter(choices)
        repeated = [choice for choice, count in counts.items() if count > 1]
        faults = [
            f"{show(choice)} is there {counts[choice]} times; expected each choice only once" for choice in repeated
        ]
    encoded: dict[str, Ids] = {}
    for choice in () if faults else choices:
        try:
            encoded[choice] = np.array([*text.encode(choice), text.end_id], np.int64)
        except ConfigError as error:
            faults.append(error.message)
    if faults:
        raise ConfigError("the choices are invalid", bounded(faults))
    return encoded


def score_prompts(
    graph: Graph,
    bank: Array,
    prompts: Sequence[tuple[Tokens, AppliedSkill]],
    choices: Mapping[str, Ids],
    best_only: bool,
    control: Control,
    store: PrefixCache | None = None,
) -> Iterator[dict[str, float]]:
    """Score every choice after every prompt.

    Args:
        graph: The graph to run.
        bank: [N, P], pinned by the caller.
        prompts: The tokens and the skill of each prompt.
        choices: From `encode_choices`.
        best_only: Skip choices that can no longer win.
        control: Asked between two runs of the graph.
        store: What earlier requests have read.

    Yields:
        Per prompt: choice -> log-probability.

    Raises:
        ConfigError: Names every prompt that does not fit into the context with the longest choice, and every choice
            that the vocabulary lacks.
        StoppedError: The control said stop.
    """
    longest = max(len(ids) for ids in choices.values())
    context = graph.directory.context_length
    sizes = [len(tokens.ids) for tokens, _ in prompts]
    faults = [
        f"row {number}: {size} prompt tokens + {longest} of the longest choice; the context has {context}"
        for number, size in enumerate(sizes)
        if size + longest > context
    ]
    faults += [
        f"{show(choice)}: token id {ids.max()}; the vocabulary has {graph.vocabulary}"
        for choice, ids in choices.items()
        if ids.max() >= graph.vocabulary
    ]
    if faults:
        raise ConfigError("the prompts and choices do not fit into the model", bounded(faults))
    view = None if store is None else store.view([applied for _, applied in prompts])
    cache = Cache(graph, bank, 1, max(sizes) + longest, view)
    for tokens, applied in prompts:
        yield _score(cache, tokens, applied, choices, best_only, control)


def _score(
    cache: Cache,
    tokens: Tokens,
    applied: AppliedSkill,
    choices: Mapping[str, Ids],
    best_only: bool,
    control: Control,
) -> dict[str, float]:
    control.check()
    for found in cache.prefill_steps(0, tokens.ids, skill_rows(tokens, applied), exact=True):
        control.check()
        logits = found[0]
    scores = score_steps(cache, 0, tokens.ids, applied.skill_id, logits, choices, best_only)
    while True:
        control.check()
        try:
            next(scores)
        except StopIteration as end:
            scored: dict[str, float] = end.value
            return scored


def probabilities(scores: Mapping[str, float]) -> dict[str, float]:
    """Softmax over scores: the probability of each choice, given that the answer is one of them."""
    top = max(scores.values())
    weights = {label: float(np.exp(score - top)) for label, score in scores.items()}
    total = sum(weights.values())
    return {label: weight / total for label, weight in weights.items()}
