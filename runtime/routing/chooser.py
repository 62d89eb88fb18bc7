"""Chooses among loaded skills: probabilities from a state, and Auto Top-K on them."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lime_edge.runtime.types import SkillSpec
from lime_edge.skills.route import Route as Centroids
from lime_edge.skills.route_statistics import RouteStatistics

from .state_space import Mixtures, StateSpace

Float32 = npt.NDArray[np.float32]

THETA = 0.5  # Auto Top-K: skills with at least this share of the highest probability stay
MOST = 3  # skills in a blend


@dataclass(frozen=True, eq=False)
class Candidate:
    """A loaded skill that can be chosen.

    Attributes:
        name: Its name.
        generation: Of the loaded skill: the same generation has the same centroids.
        centroids: What its requests look like.
        kind: Only skills of an equal kind are blended: how requests are put and answered, and which tokens are adapted.
    """

    name: str
    generation: int
    centroids: Centroids
    kind: Hashable


@dataclass(frozen=True)
class Decision:
    """What a state led to.

    Attributes:
        skill: A name, a blend, or None for the base.
        probabilities: Of every candidate by name, likeliest first.
        none: The probability that the request is for no skill; all probabilities sum to 1.
        why: One sentence.
    """

    skill: SkillSpec
    probabilities: Mapping[str, float]
    none: float
    why: str


class Chooser:
    """Chooses by the statistics of one model. Safe to use from several threads.

    Args:
        statistics, own: As for `StateSpace`.
    """

    def __init__(self, statistics: RouteStatistics, own: Float32 | None = None) -> None:
        self._statistics = statistics
        self._space = StateSpace(statistics, own)
        self._none = self._space.place(statistics.none)  # [m, r]
        self._known: tuple[tuple[int, ...], Mixtures] | None = None  # of the last candidates

    def takes(self, centroids: Centroids | None) -> bool:
        """Whether a skill with these centroids can be chosen by this model's states."""
        wanted = self._statistics
        return (
            centroids is not None
            and (centroids.layer, centroids.pooling) == (wanted.layer, wanted.pooling)
            and centroids.centroids.shape[1] == wanted.width
        )

    def choose(self, state: Float32, candidates: Sequence[Candidate], most: int = MOST) -> Decision:
        """Decide by a state.

        Args:
            state: [D], of the last token of the request as the base reads it.
            candidates: Skills that `takes` accepts.
            most: The largest number of skills in a blend; 1 never blends.
        """
        if not candidates:
            return Decision(None, {}, 1.0, "no loaded skill has centroids of this model's states")
        point = self._space.project(state[None])[0]
        logits = self._space.log_likelihoods(point, self._mixtures(candidates))  # [1 + n]
        logits[0] += self._statistics.threshold
        shares = np.exp(logits - logits.max())
        shares /= shares.sum()
        none, found = float(shares[0]), shares[1:]
        order = np.argsort(-found, kind="stable")
        probabilities = {candidates[at].name: float(found[at]) for at in order}
        if none >= found[order[0]]:
            return Decision(None, probabilities, none, f"nothing fits: no skill is as likely as none, {none:.0%}")
        skill, why = _top(candidates, found, order, most)
        return Decision(skill, probabilities, none, why)

    def _mixtures(self, candidates: Sequence[Candidate]) -> Mixtures:
        """Those of "none" and of the candidates, made once as long as the candidates stay."""
        key, known = tuple(candidate.generation for candidate in candidates), self._known
        if known is None or known[0] != key:
            placed = [self._space.place(candidate.centroids.centroids) for candidate in candidates]
            known = self._known = key, Mixtures([self._none, *placed])
        return known[1]


def _top(
    candidates: Sequence[Candidate], found: npt.NDArray[np.float64], order: npt.NDArray[np.int64], most: int
) -> tuple[SkillSpec, str]:
    """Auto Top-K: the likeliest skill, and those of its kind with at least `THETA` of its probability."""
    best = candidates[order[0]]
    peak = found[order[0]]
    near = [at for at in order if found[at] >= THETA * peak and candidates[at].kind == best.kind][:most]
    if len(near) == 1:
        return best.name, f"{best.name} is the likeliest, {peak:.0%}"
    total = float(found[near].sum())
    blend = {candidates[at].name: float(found[at]) / total for at in near}
    listed = ", ".join(f"{candidates[at].name} {found[at]:.0%}" for at in near)
    return blend, f"a blend of skills that are about as likely: {listed}"
