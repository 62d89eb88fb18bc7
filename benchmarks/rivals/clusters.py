"""k-means clustering of prompts, for MoCLE.

A prompt is represented by the mean of its tokens' input embeddings, normalised to length 1.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

_ROUNDS = 20


def represent(embedding: Tensor, prompts: Sequence[Sequence[int]]) -> Tensor:
    """Mean input embedding of every prompt, normalised: [V, D] and N lists of token ids -> [N, D]."""
    means = torch.stack([embedding[torch.tensor(prompt)].float().mean(0) for prompt in prompts])
    return torch.nn.functional.normalize(means, dim=1)


def k_means(points: Tensor, count: int, seed: int) -> Tensor:
    """Centres [K, D] of `count` clusters of points [N, D], by Lloyd's algorithm from random points.

    An empty cluster keeps its centre. The result is deterministic for a seed.
    """
    generator = torch.Generator().manual_seed(seed)
    centres = points[torch.randperm(len(points), generator=generator)[:count]].clone()
    for _ in range(_ROUNDS):
        nearest = assign(points, centres)
        for cluster in range(len(centres)):
            mine = points[nearest == cluster]
            if len(mine):
                centres[cluster] = mine.mean(0)
    return centres


def assign(points: Tensor, centres: Tensor) -> Tensor:
    """Index of each point's nearest centre, [N]."""
    return torch.cdist(points, centres).argmin(1)
