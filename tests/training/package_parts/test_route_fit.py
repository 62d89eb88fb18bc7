"""Centroids and statistics: what they are on data whose answer is known, and how a choice by them is calibrated."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from lime_edge.errors import DataError
from lime_edge.skills.route_statistics import radius
from lime_edge.training.package_parts.route_fit import SHRINKAGE, TEMPERATURES, cluster, fit_route, fit_statistics

Float64 = npt.NDArray[np.float64]
WIDTH = 12


def texts(kinds: int, rows: int, seed: int = 0, apart: float = 3.0) -> tuple[Float64, list[str]]:
    """Kinds of text whose states vary much along one direction, and differ in the others."""
    rng = np.random.default_rng(seed)
    spread = np.ones(WIDTH)
    spread[0] = 20
    centres = apart * rng.standard_normal((kinds, WIDTH)) + 5
    states = np.concatenate([centre + spread * rng.standard_normal((rows, WIDTH)) for centre in centres])
    return states, [f"kind {kind}" for kind in range(kinds) for _ in range(rows)]


def test_clusters_that_are_apart_are_found() -> None:
    rng = np.random.default_rng(0)
    points = np.concatenate([rng.standard_normal((20, 3)) + 50 * np.eye(3)[at] for at in range(3)])
    labels = cluster(points, 3)
    assert [len(set(labels[start : start + 20])) for start in (0, 20, 40)] == [1, 1, 1]
    assert len(set(labels)) == 3
    np.testing.assert_array_equal(cluster(points, 3), labels)
    assert set(cluster(points[:1].repeat(5, 0), 3)) <= {0, 1, 2}  # equal points


def test_the_whitening_makes_the_variation_within_kinds_one() -> None:
    states, kinds = texts(16, 60)
    found = fit_statistics(states, kinds, 3)
    assert (found.layer, found.pooling) == (3, "last")
    within = np.concatenate([states[at : at + 60] - states[at : at + 60].mean(0) for at in range(0, 960, 60)])
    covariance = np.cov((within @ found.whitening.T).T)
    assert np.abs(covariance - np.eye(WIDTH)).max() < 0.05 + SHRINKAGE
    np.testing.assert_allclose(found.mean, states.mean(0), rtol=1e-3)


def test_a_skill_has_a_centroid_for_every_eight_rows_up_to_four() -> None:
    states, kinds = texts(16, 30)
    statistics = fit_statistics(states, kinds, 1)
    for rows, count in ((1, 1), (7, 1), (16, 2), (30, 3)):
        route = fit_route(states[:rows], statistics)
        assert len(route.centroids) <= count
        assert (route.layer, route.pooling) == (1, "last")
    points = (states[:7] - statistics.mean) @ statistics.whitening.T
    points *= radius(statistics.whitening) / np.linalg.norm(points, axis=1, keepdims=True)
    (found,) = (fit_route(states[:7], statistics).centroids - statistics.mean) @ statistics.whitening.T
    np.testing.assert_allclose(found, points.mean(0), rtol=1e-4, atol=1e-4)


def test_the_threshold_loses_few_requests_of_new_skills() -> None:
    states, kinds = texts(40, 40)
    found = fit_statistics(states, kinds, 1)
    assert found.temperature in TEMPERATURES
    new, names = texts(12, 80, seed=1)
    points = (new - found.mean) @ found.whitening.T
    points *= radius(found.whitening) / np.linalg.norm(points, axis=1, keepdims=True)
    none = (found.none - found.mean) @ found.whitening.T
    owner = np.array([int(name.split()[1]) for name in names])
    routes = [fit_route(new[owner == kind][:40], found).centroids for kind in range(6)]  # the other kinds are foreign

    def score(centres: Float64) -> Float64:
        distances = np.square(points[:, None] - centres[None]).sum(-1)
        return np.asarray(np.log(np.exp(-distances / (2 * found.temperature)).mean(1)))

    skills = np.stack([score((one - found.mean) @ found.whitening.T) for one in routes], 1)
    to_base = score(none) + found.threshold > skills.max(1)
    unseen = np.arange(len(new)) % 80 >= 40
    own, foreign = (owner < 6) & unseen, owner >= 6
    assert to_base[own].mean() < 0.2
    assert to_base[foreign].mean() > 0.5
    assert (skills.argmax(1)[own & ~to_base] == owner[own & ~to_base]).mean() > 0.95


def test_directions_in_which_precisions_differ_count_little() -> None:
    states, kinds = texts(16, 60)
    noise = np.zeros((50, WIDTH))
    noise[:, 3] = 30 * np.random.default_rng(0).standard_normal(50)
    plain, quiet = fit_statistics(states, kinds, 1), fit_statistics(states, kinds, 1, noise)
    moved = np.eye(WIDTH)[3]
    assert np.linalg.norm(quiet.whitening @ moved) < 0.1 * np.linalg.norm(plain.whitening @ moved)
    other = np.eye(WIDTH)[5]
    assert np.linalg.norm(quiet.whitening @ other) == pytest.approx(np.linalg.norm(plain.whitening @ other), rel=0.1)


def test_too_few_kinds_are_refused() -> None:
    states, kinds = texts(7, 20)
    with pytest.raises(DataError, match="7 kinds of text have at least 8 rows; a calibration needs 8"):
        fit_statistics(states, kinds, 1)
