"""Points and likelihoods, compared with the definition in float64."""

from __future__ import annotations

import numpy as np

from lime_edge.runtime.routing.state_space import Mixtures, StateSpace, scaled
from lime_edge.skills.route_statistics import RouteStatistics

RNG = np.random.default_rng(0)
MEAN, WHITENING = RNG.standard_normal(10).astype(np.float32), RNG.standard_normal((7, 10)).astype(np.float32)
SPACE = StateSpace(RouteStatistics(1, "last", 3.0, 0.0, MEAN, WHITENING, MEAN[None]))


def test_points_do_not_depend_on_the_length_of_a_state() -> None:
    states = RNG.standard_normal((4, 10)).astype(np.float32)
    scaled = states / np.sqrt(np.square(states).mean(1, keepdims=True))
    plain = (scaled - MEAN) @ WHITENING.T
    expected = plain * np.sqrt(7) / np.linalg.norm(plain, axis=1, keepdims=True)
    np.testing.assert_allclose(SPACE.project(states), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(SPACE.project(1000 * states), expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(SPACE.place(scaled), plain, rtol=1e-4, atol=1e-5)
    assert np.isfinite(SPACE.project(np.zeros((1, 10), np.float32))).all()


def test_what_a_precision_moves_is_moved_back() -> None:
    own, shift = RNG.standard_normal((6, 10)).astype(np.float32), RNG.standard_normal(10).astype(np.float32)
    plain = scaled(own)
    statistics = RouteStatistics(1, "last", 3.0, 0.0, MEAN, WHITENING, MEAN[None], plain.mean(0), ("a",) * 6)
    moved = plain + shift
    lengths = np.sqrt(np.square(moved).mean(1, keepdims=True))
    space = StateSpace(statistics, moved)
    expected = moved / lengths - ((moved / lengths).mean(0) - plain.mean(0))
    points = (expected - MEAN) @ WHITENING.T
    points *= np.sqrt(7) / np.linalg.norm(points, axis=1, keepdims=True)
    np.testing.assert_allclose(space.project(moved), points, rtol=1e-3, atol=1e-4)
    np.testing.assert_array_equal(StateSpace(statistics).project(own), StateSpace(statistics, own).project(own))


def test_likelihoods_are_those_of_the_definition() -> None:
    sets = [RNG.standard_normal((count, 7)).astype(np.float32) for count in (1, 4, 2)]
    point = RNG.standard_normal(7).astype(np.float32)
    expected = [np.log(np.exp(-np.square(one.astype(np.float64) - point).sum(1) / 6).mean()) for one in sets]
    np.testing.assert_allclose(SPACE.log_likelihoods(point, Mixtures(sets)), expected, rtol=1e-4)


def test_far_points_give_finite_likelihoods() -> None:
    far = np.full((2, 7), 1e4, np.float32)
    found = SPACE.log_likelihoods(np.zeros(7, np.float32), Mixtures([far, far + 1]))
    assert np.isfinite(found).all()
    assert found[0] > found[1]
