"""Reads a request as the base, for the state by which a skill is chosen."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from lime_edge.runtime.model.session import Graph
from lime_edge.runtime.skills.bank import Array
from lime_edge.runtime.skills.registry import AppliedSkill
from lime_edge.runtime.text.prompts import Tokens

from .control import Control
from .kv_cache import Cache
from .prefix_cache import Pin, PrefixCache


def read_state(
    graph: Graph, bank: Array, tokens: Tokens, store: PrefixCache, pin: Pin | None, control: Control
) -> npt.NDArray[np.float32]:
    """The state of a prompt's last token.

    What is read stays in the store: the base, and skills that apply to answers alone, go on from there.

    Args:
        graph: The graph to run, which returns states.
        bank: [N, P].
        tokens: The prompt as the base gets it.
        store: What earlier requests have read.
        pin: Keeps what is read, whatever the store's limit is; None: as long as the store does.
        control: Asked between two runs of the graph.

    Returns:
        [D], of the layer that the graph was exported with.

    Raises:
        ConfigError: The prompt does not fit into the context or the memory.
        StoppedError: The control said stop.
    """
    cache = Cache(graph, bank, 1, len(tokens.ids), store.view([AppliedSkill()]))
    cache.asks_for_states = True
    for _ in cache.prefill_steps(0, tokens.ids, np.zeros_like(tokens.ids)):
        control.check()
    cache.remember(0, pin)
    assert cache.states is not None  # it asked for them
    state: npt.NDArray[np.float32] = cache.states[0]
    return state
