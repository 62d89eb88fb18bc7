"""Next-token distributions of one skill after many prompts, for `lime-edge audit`.

Prompts are token ids. The common beginning of consecutive prompts runs once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt

from lime_edge.runtime.decoding.choice_scores import log_softmax
from lime_edge.runtime.decoding.kv_cache import Cache
from lime_edge.runtime.decoding.loop import prefix_of, skill_rows, with_prefix
from lime_edge.runtime.model.session import Graph
from lime_edge.runtime.runtime import Runtime
from lime_edge.runtime.skills.bank import Array
from lime_edge.runtime.skills.registry import AppliedSkill
from lime_edge.runtime.text.prompts import Text, Tokens
from lime_edge.runtime.types import SkillSpec

Float64 = npt.NDArray[np.float64]


class Probe:
    """One skill, or the base, on a cache of one row. Create it with `probing`."""

    def __init__(self, graph: Graph, bank: Array, text: Text, applied: AppliedSkill, capacity: int) -> None:
        self._cache = Cache(graph, bank, 1, capacity + prefix_of(applied, graph))
        self._graph, self._applied, self.text = graph, applied, text

    def tokens(self, prompt: str) -> list[int]:
        """A request through the skill's interface, in the chat template."""
        interface = self._applied.interface
        ids: list[int] = self.text.tokens(interface.request(prompt), interface.system).ids.tolist()
        return ids

    def after(self, ids: Sequence[int], said: Sequence[int] = ()) -> list[Float64]:
        """Log-probabilities [V] of the answer's first token and, if `said` is given, of the token that follows it."""
        found = [log_softmax(self._prefill(ids))]
        if said:
            logits = self._cache.extend(0, np.array(said), np.full(len(said), self._applied.skill_id))
            found.append(log_softmax(logits[-1]))
        return found

    def along(self, ids: Sequence[int], said: Sequence[int]) -> Float64:
        """Log-probabilities [len(said), V] of each token of the answer `said`, given the tokens before it."""
        found = [log_softmax(self._prefill(ids))]
        if len(said) > 1:
            logits = self._cache.extend(0, np.array(said[:-1]), np.full(len(said) - 1, self._applied.skill_id))
            found += [log_softmax(row) for row in logits]
        return np.stack(found)

    def greedy(self, ids: Sequence[int], count: int) -> tuple[tuple[int, ...], float]:
        """The greedy answer of at most `count` tokens, including the end of turn, and its mean log-probability."""
        scores = log_softmax(self._prefill(ids))
        answer, total = [int(scores.argmax())], float(scores.max())
        while len(answer) < count and answer[-1] not in self.text.eos_ids:
            logits = self._cache.step(np.array(answer[-1:]), np.array([self._applied.skill_id]))[0]
            scores = log_softmax(logits)
            answer.append(int(scores.argmax()))
            total += float(scores.max())
        return tuple(answer), total / len(answer)

    def _prefill(self, ids: Sequence[int]) -> Array:
        tokens: Tokens = with_prefix(self.text.known(ids), self._applied, self._graph)
        return self._cache.prefill(0, tokens.ids, skill_rows(tokens, self._applied))[0]


@contextmanager
def probing(runtime: Runtime, skill: SkillSpec, capacity: int) -> Iterator[Probe]:
    """A probe of a loaded skill; None is the base. The skill's bank row stays pinned while the context is open.

    Raises:
        UnknownSkillError: The skill is not loaded.
        ConfigError: `capacity` exceeds the model's context length.
    """
    with runtime._registry.lease([skill]) as lease:
        yield Probe(runtime._graph, lease.array, runtime._text, lease.applied[0], capacity)
