"""The space in which states are compared: whitened, so that requests of one kind vary by one in every direction."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from lime_edge.skills.route_statistics import RouteStatistics, radius

Float32 = npt.NDArray[np.float32]


class StateSpace:
    """Projects states [D] into the space [r] of a checkpoint's statistics, and compares them with mixtures.

    A state is divided by its root mean square first, as the layers of the backbone do, and its point is put on a
    sphere: what is unlike anything else is not near to anything by its length.

    Args:
        statistics: The checkpoint's.
        own: States [n, D] of the statistics' texts in this model, whose precision moves them; None: it does not.
    """

    def __init__(self, statistics: RouteStatistics, own: Float32 | None = None) -> None:
        self._mean, self._whitening = statistics.mean, statistics.whitening
        self._moved = np.zeros_like(self._mean)  # by how much this model's states are off
        if own is not None and statistics.reference is not None:
            self._moved = scaled(own).mean(0) - statistics.reference
        self.temperature = statistics.temperature

    def project(self, states: Float32) -> Float32:
        """States [n, D] as points [n, r]."""
        points = self.place(scaled(states) - self._moved)
        lengths = np.sqrt(np.square(points).sum(-1, keepdims=True)) + 1e-12
        placed: Float32 = (points * (radius(self._whitening) / lengths)).astype(np.float32)
        return placed

    def place(self, centroids: Float32) -> Float32:
        """Centroids [k, D] as points [k, r]: means of points, which lie inside the sphere."""
        return ((centroids - self._mean) @ self._whitening.T).astype(np.float32)

    def log_likelihoods(self, point: Float32, mixtures: Mixtures) -> npt.NDArray[np.float64]:
        """log of the mean over a mixture's points c of exp(-|point - c|^2 / 2T), for each mixture [n].

        T is the temperature of the statistics; the constant of a normal distribution is left out, since all have it.
        """
        differences = mixtures.points @ point  # [N]
        exponents = (differences - 0.5 * mixtures.squares - 0.5 * float(point @ point)) / self.temperature
        exponents = exponents.astype(np.float64)
        most = np.maximum.reduceat(exponents, mixtures.starts)  # [n]
        sums = np.add.reduceat(np.exp(exponents - np.repeat(most, mixtures.counts)), mixtures.starts)
        found: npt.NDArray[np.float64] = most + np.log(sums / mixtures.counts)
        return found


def scaled(states: Float32) -> Float32:
    """States [n, D], each divided by its root mean square."""
    scale = np.sqrt(np.mean(np.square(states, dtype=np.float64), axis=-1, keepdims=True)) + 1e-12
    found: Float32 = (states / scale).astype(np.float32)
    return found


class Mixtures:
    """Several sets of points, laid one after the other.

    Args:
        sets: Points [k, r] each, k >= 1.
    """

    def __init__(self, sets: list[Float32]) -> None:
        self.points = np.concatenate(sets).astype(np.float32)  # [N, r]
        self.squares = np.square(self.points).sum(-1)  # [N]
        self.counts = np.array([len(one) for one in sets])
        self.starts = np.concatenate([[0], np.cumsum(self.counts)[:-1]])
