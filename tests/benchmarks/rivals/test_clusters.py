"""k-means over prompts."""

from __future__ import annotations

import torch

from benchmarks.rivals import clusters


def test_clusters_find_what_is_apart() -> None:
    embedding = torch.eye(6)
    prompts = [[0, 1], [1, 0, 0], [0, 0], [4, 5], [5], [4, 4, 5]]
    points = clusters.represent(embedding, prompts)
    torch.testing.assert_close(points.norm(dim=1), torch.ones(6))
    centres = clusters.k_means(points, 2, seed=0)
    assert torch.equal(centres, clusters.k_means(points, 2, seed=0))
    found = clusters.assign(points, centres)
    assert found[0] == found[1] == found[2] != found[3] == found[4] == found[5]
