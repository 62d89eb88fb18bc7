"""Fits what a choice of skills compares: centroids of a skill's requests, and the statistics of a checkpoint.

States are rows [n, D], each divided by its root mean square. Plain numpy; where the states come from, see
route_states.py. The method: docs/routing.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from lime_edge.errors import DataError
from lime_edge.skills.route import CENTROID_LIMIT, Route
from lime_edge.skills.route_statistics import RouteStatistics, radius

Float64 = npt.NDArray[np.float64]
Whole = npt.NDArray[np.intp]

SHRINKAGE = 0.05  # share of the diagonal in the covariance
NONE = 32  # centroids of "none"
LOST = 0.025  # share of a skill's own requests that the calibration lets go to the base
TEMPERATURES = (10.0, 20.0, 30.0, 45.0, 60.0)
_PER_CENTROID = 8  # rows that a centroid needs at least
_STARTS, _ROUNDS = 4, 10  # of k-means
_FOLDS = 4
_LEAST = 8  # rows of a kind that can play a skill in the calibration


def fit_route(states: npt.NDArray[np.floating], statistics: RouteStatistics) -> Route:
    """The centroids of a skill.

    Args:
        states: [n, D], n >= 1, of requests that the skill was learned from.
        statistics: Of its checkpoint.
    """
    states = _on_sphere(states, statistics)
    points = (states - statistics.mean) @ statistics.whitening.T
    count = max(1, min(CENTROID_LIMIT, len(states) // _PER_CENTROID))
    labels = cluster(points, count)
    centroids = [states[labels == label].mean(0) for label in np.unique(labels)]
    return Route(statistics.layer, statistics.pooling, np.stack(centroids))


def fit_statistics(
    states: npt.NDArray[np.floating],
    kinds: Sequence[str],
    layer: int,
    noise: npt.NDArray[np.floating] | None = None,
) -> RouteStatistics:
    """The statistics of a checkpoint, with temperature and threshold calibrated on the given kinds of text.

    For the calibration, kinds that the rest of the fit has not seen play the skills, and others play requests that
    belong to none.

    Args:
        states: [n, D], of the last token of texts as the base reads them.
        kinds: What kind of text each is, such as the name of its task.
        layer: Whose output the states are.
        noise: [m, D], by how much states differ between precisions of the weights; None: not at all. A direction in
            which they differ counts as little as one in which texts of one kind differ.

    Raises:
        DataError: There are too few kinds, or too few rows of them.
    """
    labels = np.unique(np.asarray(kinds), return_inverse=True)[1]
    counts = np.bincount(labels)
    if (able := int((counts >= _LEAST).sum())) < 2 * _FOLDS:
        raise DataError(
            f"{able} kinds of text have at least {_LEAST} rows; a calibration needs {2 * _FOLDS}: give more data files"
        )
    precise = np.asarray(states, np.float64)
    best: tuple[float, float, float] | None = None
    differences = np.zeros((1, states.shape[1])) if noise is None else np.asarray(noise, np.float64)
    spread = differences.T @ differences / len(differences)
    differences = differences - differences.mean(0)  # a model takes the mean off
    folds = [_margins(precise, labels, counts, fold, layer, spread, differences) for fold in range(_FOLDS)]
    for temperature in TEMPERATURES:
        threshold, loss = _calibrated(folds, temperature)
        if best is None or loss < best[0]:
            best = loss, temperature, threshold
    assert best is not None
    return replace(_fit(precise, labels, layer, spread), temperature=best[1], threshold=best[2])


def cluster(points: npt.NDArray[np.floating], count: int) -> Whole:
    """k-means: the cluster of each point [n], count <= n. The same points give the same clusters."""
    random, best, found = np.random.default_rng(0), np.inf, np.zeros(len(points), np.intp)
    for _ in range(_STARTS):
        centres = points[random.choice(len(points), count, replace=False)]
        for _ in range(_ROUNDS):
            labels = _distances(points, centres).argmin(1)
            means = [points[labels == at].mean(0) if (labels == at).any() else centres[at] for at in range(count)]
            centres = np.stack(means)
        distances = _distances(points, centres)
        if (total := float(distances.min(1).sum())) < best:
            best, found = total, distances.argmin(1)
    return found


def _fit(states: Float64, labels: Whole, layer: int, noise: Float64) -> RouteStatistics:
    """Mean, whitening by the covariance within kinds and that of the noise [D, D], and centroids of all texts."""
    kinds = np.unique(labels)
    mean = states.mean(0)
    within = np.concatenate([states[labels == kind] - states[labels == kind].mean(0) for kind in kinds])
    covariance = within.T @ within / max(1, len(states) - len(kinds)) + noise
    diagonal = np.diag(covariance) + 1e-12
    covariance = (1 - SHRINKAGE) * covariance + SHRINKAGE * np.diag(diagonal)
    values, vectors = np.linalg.eigh(covariance)
    whitening = (vectors / np.sqrt(np.maximum(values, 1e-9 * values.max()))).T
    plain = RouteStatistics(
        layer, "last", 1.0, 0.0, *(array.astype(np.float32) for array in (mean, whitening, mean[None]))
    )
    short = _on_sphere(states, plain)
    groups = cluster((short - mean) @ whitening.T, min(NONE, len(states)))
    none = np.stack([short[groups == group].mean(0) for group in np.unique(groups)])
    return replace(plain, none=none.astype(np.float32))


def _on_sphere(states: npt.NDArray[np.floating], statistics: RouteStatistics) -> Float64:
    """States [n, D], moved along the line to the mean so that their points lie on the sphere."""
    moved = np.asarray(states, np.float64) - statistics.mean
    lengths = np.sqrt(np.square(moved @ statistics.whitening.T.astype(np.float64)).sum(1, keepdims=True)) + 1e-12
    found: Float64 = statistics.mean + moved * (radius(statistics.whitening) / lengths)
    return found


Fold = tuple[Float64, list[Float64], Whole]  # squared distances to "none" and to each skill; whose requests they are


def _margins(
    states: Float64, labels: Whole, counts: Whole, fold: int, layer: int, spread: Float64, noise: Float64
) -> Fold:
    """What the calibration needs of one fold: its kinds, every second of which plays a skill, are not in the fit.

    Returns:
        Distances [n, m] of held-out requests to "none", their distances [n, k] to each skill, and the number of the
        skill that each belongs to, -1 for none.
    """
    able = [kind for kind in np.argsort(-counts, kind="stable") if counts[kind] >= _LEAST]
    held = able[fold::_FOLDS]
    skills, foreign = held[::2], held[1::2]
    rest = ~np.isin(labels, held)
    fitted = _fit(states[rest], labels[rest], layer, spread)
    asking = states + noise[np.arange(len(states)) % len(noise)]  # as another precision of the weights gives them
    points = (_on_sphere(asking, fitted) - fitted.mean) @ fitted.whitening.T.astype(np.float64)
    asked, owners, sets = [], [], []
    for number, kind in enumerate(skills):
        rows = np.flatnonzero(labels == kind)
        route = fit_route(states[rows[::2]], fitted)
        sets.append((route.centroids - fitted.mean) @ fitted.whitening.T)
        asked += rows[1::2].tolist()
        owners += [number] * len(rows[1::2])
    others = np.flatnonzero(np.isin(labels, foreign)).tolist()
    found = points[asked + others]
    none = _distances(found, (fitted.none - fitted.mean) @ fitted.whitening.T)
    owner = np.array(owners + [-1] * len(others))
    return none, [_distances(found, one) for one in sets], owner


def _calibrated(folds: Sequence[Fold], temperature: float) -> tuple[float, float]:
    """The threshold at which `LOST` of the own requests go to the base, and the mean negative log-likelihood there."""
    logits = [
        np.stack([_log_mean(distances, temperature) for distances in (none, *skills)], 1)  # [n, 1 + s]
        for none, skills, _ in folds
    ]
    own = np.concatenate(
        [(of[:, 1:].max(1) - of[:, 0])[owner >= 0] for of, (_, _, owner) in zip(logits, folds, strict=True)]
    )
    threshold = float(np.quantile(own, LOST))
    losses = []
    for of, (_, _, owner) in zip(logits, folds, strict=True):
        shifted = of.copy()
        shifted[:, 0] += threshold
        shifted -= shifted.max(1, keepdims=True)
        shares = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
        losses.append(-shares[np.arange(len(owner)), owner + 1])
    return threshold, float(np.concatenate(losses).mean())


def _log_mean(distances: Float64, temperature: float) -> Float64:
    """log of the mean of exp(-distance / 2T) over the points of a mixture, [n]."""
    exponents = -distances / (2 * temperature)
    most = exponents.max(1, keepdims=True)
    found: Float64 = (most + np.log(np.exp(exponents - most).mean(1, keepdims=True)))[:, 0]
    return found


def _distances(points: npt.NDArray[np.floating], centres: npt.NDArray[np.floating]) -> Float64:
    """Squared distances [n, k]."""
    squares = np.square(points).sum(1)[:, None] - 2 * points @ centres.T + np.square(centres).sum(1)
    found: Float64 = np.maximum(squares, 0)
    return found
