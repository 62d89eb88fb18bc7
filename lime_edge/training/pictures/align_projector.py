"""Aligns a projector with the words of a language model, before any of them is trained through the model.

A picture whose answer is known should give tokens that resemble the embedding of that answer: a model that never saw a
picture then reads the picture's tokens as it reads words. This needs no run of the model, so thousands of steps cost
less than a hundred through it (docs/vision.md).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_SHARPNESS = 20.0  # of the softmax over cosines, as in CLIP
_PARTS = 3  # tokens of parts of the picture in each step
_PULL = 0.1  # weight of the distance to the answer's embedding, which sets the length of tokens
_NOISE = 0.1  # standard deviation of what is added to features, relative to theirs


def word_targets(embedding: Tensor, answers: Sequence[Sequence[int]]) -> Tensor:
    """What the tokens of a picture should resemble, one row for each answer.

    Args:
        embedding: The model's embedding matrix, [V, H].
        answers: Token ids of each answer.

    Returns:
        The mean embedding of each answer's tokens, [A, H].
    """
    return torch.stack([embedding[list(ids)].float().mean(0) for ids in answers])


def align(
    projector: nn.Module,
    features: Tensor,
    labels: Tensor,
    targets: Tensor,
    steps: int,
    batch: int = 256,
    rate: float = 1e-3,
    decay: float = 0.05,
    seed: int = 0,
) -> list[float]:
    """Train the projector so that the tokens of a picture name its answer among all answers.

    Args:
        projector: [..., C] -> [..., H]; changed in place.
        features: Pooled features of all pictures, [N, T, C].
        labels: Index of each picture's answer, [N].
        targets: From `word_targets`, [A, H].
        steps: Optimiser steps.
        batch: Pictures in a step.
        rate: Learning rate at the start; it falls to 0 along a cosine.
        decay: Weight decay.
        seed: Of the order of pictures and of the noise.

    Returns:
        The loss of every step.
    """
    draw = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(projector.parameters(), lr=rate, weight_decay=decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    middle, length = targets.mean(0), targets.norm(dim=-1).mean()
    words = F.normalize(targets - middle, dim=-1)
    losses = []
    for _ in range(steps):
        chosen = torch.randint(len(features), (min(batch, len(features)),), generator=draw)
        some = torch.cat([torch.zeros(1, dtype=torch.long), 1 + torch.randperm(features.shape[1] - 1, generator=draw)])
        given = features[chosen][:, some[: 1 + _PARTS]].float()  # token 0 sees the whole picture
        given = given + _NOISE * given.std() * torch.randn(given.shape, generator=draw)
        tokens, wanted = projector(given), labels[chosen]  # [B, 1 + parts, H], [B]
        cosines = F.normalize(tokens - middle, dim=-1) @ words.T  # [B, 1 + parts, A]
        naming = [F.cross_entropy(_SHARPNESS * each, wanted) for each in cosines.unbind(1)]
        distance = (tokens - targets[wanted][:, None]).square().sum(-1).mean() / length.square()
        loss = (naming[0] + torch.stack(naming).mean()) / 2 + _PULL * distance
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(float(loss.detach()))
    return losses


@torch.no_grad()
def named(projector: nn.Module, features: Tensor, targets: Tensor, allowed: Sequence[Sequence[int]]) -> list[int]:
    """The answer that token 0 of each picture resembles most.

    Args:
        projector: [..., C] -> [..., H].
        features: [N, T, C].
        targets: From `word_targets`, [A, H].
        allowed: The indices of the answers that are possible for each picture.
    """
    middle = targets.mean(0)
    words = F.normalize(targets - middle, dim=-1)
    scores = F.normalize(projector(features[:, 0].float()) - middle, dim=-1) @ words.T  # [N, A]
    return [max(some, key=lambda i: float(row[i])) for row, some in zip(scores, allowed, strict=True)]
