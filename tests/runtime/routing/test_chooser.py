"""Auto Top-K: one skill, a blend, or none, by probabilities that are computed by hand."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest

from lime_edge.runtime.routing.chooser import MOST, THETA, Candidate, Chooser
from lime_edge.skills.route import Route
from lime_edge.skills.route_statistics import RouteStatistics

WIDTH = 6
AXES = np.eye(WIDTH, dtype=np.float32) * np.float32(np.sqrt(WIDTH))  # states of root mean square 1
STATISTICS = RouteStatistics(
    2, "last", 0.5, 0.0, np.zeros(WIDTH, np.float32), np.eye(WIDTH, dtype=np.float32), AXES[:1].copy()
)


def candidate(name: str, *centroids: int, kind: str = "text", generation: int = 0) -> Candidate:
    found = np.stack([AXES[at] for at in centroids])
    return Candidate(name, generation or sum(name.encode()), Route(2, "last", found), kind)


SKILLS = (candidate("a", 1), candidate("b", 2), candidate("c", 3, 4))


def test_a_state_at_a_centroid_chooses_its_skill() -> None:
    for at, name in ((1, "a"), (2, "b"), (3, "c"), (4, "c")):
        found = Chooser(STATISTICS).choose(7 * AXES[at], SKILLS)  # the length of a state does not count
        assert found.skill == name
        assert next(iter(found.probabilities)) == name
        assert sum(found.probabilities.values()) + found.none == pytest.approx(1)
    assert Chooser(STATISTICS).choose(AXES[0], SKILLS).skill is None


def test_probabilities_are_those_of_the_definition() -> None:
    state = (AXES[1] + 0.5 * AXES[3] + 0.2 * AXES[0]).astype(np.float64)
    state *= np.sqrt(WIDTH) / np.linalg.norm(state)
    weights = [np.exp(-np.square(state - axis).sum() / (2 * 0.5)) for axis in AXES]
    likely = {"a": weights[1], "b": weights[2], "c": (weights[3] + weights[4]) / 2}
    total = weights[0] + sum(likely.values())
    found = Chooser(STATISTICS).choose(state.astype(np.float32), SKILLS)
    assert dict(found.probabilities) == pytest.approx({name: value / total for name, value in likely.items()}, rel=1e-4)
    assert found.none == pytest.approx(weights[0] / total, rel=1e-4)


def test_skills_that_are_about_as_likely_are_blended_by_probability() -> None:
    between = (AXES[1] * 1.05 + AXES[2]).astype(np.float32)
    found = Chooser(STATISTICS).choose(between, SKILLS)
    assert isinstance(found.skill, dict)
    a, b = found.probabilities["a"], found.probabilities["b"]
    assert b >= THETA * a
    assert found.skill == pytest.approx({"a": a / (a + b), "b": b / (a + b)})
    assert "blend" in found.why
    assert Chooser(STATISTICS).choose(between, SKILLS, most=1).skill == "a"
    other = (SKILLS[0], candidate("b", 2, kind="choices"))
    assert Chooser(STATISTICS).choose(between, other).skill == "a"  # of one interface only


def test_a_blend_has_no_more_skills_than_allowed() -> None:
    equal = tuple(candidate(name, 1, generation=number) for number, name in enumerate("abcdef", 1))
    found = Chooser(STATISTICS).choose(AXES[1], equal)
    assert isinstance(found.skill, dict)
    assert len(found.skill) == MOST


def test_the_threshold_sends_more_to_the_base() -> None:
    between = (AXES[1] + AXES[0] * 0.9).astype(np.float32)
    assert Chooser(STATISTICS).choose(between, SKILLS).skill == "a"
    strict = replace(STATISTICS, threshold=9.0)
    assert Chooser(strict).choose(between, SKILLS).skill is None


def test_a_skill_that_was_replaced_counts_with_its_new_centroids() -> None:
    chooser = Chooser(STATISTICS)
    assert chooser.choose(AXES[1], SKILLS).skill == "a"
    assert chooser.choose(AXES[1], (candidate("a", 5, generation=9), SKILLS[1], SKILLS[2])).skill is None


def test_only_centroids_of_the_same_states_are_taken() -> None:
    chooser, centroids = Chooser(STATISTICS), AXES[:2]
    assert chooser.takes(Route(2, "last", centroids))
    assert not chooser.takes(None)
    assert not chooser.takes(Route(3, "last", centroids))
    assert not chooser.takes(Route(2, "mean", centroids))
    assert not chooser.takes(Route(2, "last", centroids[:, :3]))


def test_without_candidates_the_base_answers() -> None:
    found = Chooser(STATISTICS).choose(AXES[1], ())
    assert (found.skill, found.none, dict(found.probabilities)) == (None, 1.0, {})


def test_a_choice_among_a_thousand_takes_about_a_millisecond() -> None:
    """The time is measured by benchmarks/routing; this bound only notices a loop over skills."""
    rng = np.random.default_rng(0)
    width = 576
    statistics = RouteStatistics(
        2,
        "last",
        60.0,
        0.0,
        np.zeros(width, np.float32),
        np.eye(width, dtype=np.float32),
        rng.standard_normal((32, width)).astype(np.float32),
    )
    many = tuple(
        Candidate(str(at), at, Route(2, "last", rng.standard_normal((4, width)).astype(np.float32)), "text")
        for at in range(1000)
    )
    chooser, state = Chooser(statistics), rng.standard_normal(width).astype(np.float32)
    chooser.choose(state, many)
    times = []
    for _ in range(20):
        started = time.perf_counter()
        chooser.choose(state, many)
        times.append(time.perf_counter() - started)
    assert min(times) < 0.02
