"""Alignment of a projector with the words of a model: pictures of a class come to resemble its name."""

from __future__ import annotations

import torch

from lime_edge.backbones.efficientnet_lite import CHANNELS
from lime_edge.backbones.lime_vision import Projector
from lime_edge.training.pictures.align_projector import align, named, word_targets

CLASSES, EACH, TOKENS, HIDDEN = 4, 24, 5, 16


def data(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Pictures of each class: noise around the class's own direction."""
    centres = torch.randn(CLASSES, 1, CHANNELS, generator=torch.Generator().manual_seed(0))
    noise = torch.randn(CLASSES * EACH, TOKENS, CHANNELS, generator=torch.Generator().manual_seed(seed))
    labels = torch.arange(CLASSES).repeat_interleave(EACH)
    return centres[labels] + 2 * noise, labels


def targets() -> torch.Tensor:
    embedding = torch.randn(50, HIDDEN, generator=torch.Generator().manual_seed(1))
    return word_targets(embedding, [[3], [4, 5], [6], [7]])


def projector() -> Projector:
    torch.manual_seed(2)
    return Projector(32, HIDDEN)


def test_targets_are_means_over_the_tokens_of_an_answer() -> None:
    embedding = torch.arange(12.0).view(6, 2)
    assert word_targets(embedding, [[1], [1, 3]]).tolist() == [[2, 3], [4, 5]]


def test_new_pictures_are_named_after_the_training() -> None:
    net, (features, labels), (others, wanted) = projector(), data(3), data(4)
    allowed = [range(CLASSES)] * len(others)
    before = named(net, others, targets(), allowed)
    losses = align(net, features, labels, targets(), 60, batch=32)
    found = named(net, others, targets(), allowed)
    assert len(losses) == 60
    assert sum(losses[-10:]) < 0.5 * sum(losses[:10])
    right = sum(int(a) == int(b) for a, b in zip(found, wanted, strict=True)) / len(found)
    assert right > 0.9
    assert right > sum(int(a) == int(b) for a, b in zip(before, wanted, strict=True)) / len(found) + 0.3


def test_only_allowed_answers_are_given_and_a_seed_repeats_the_training() -> None:
    features, labels = data(3)
    first, second = projector(), projector()
    assert align(first, features, labels, targets(), 3) == align(second, features, labels, targets(), 3)
    assert set(named(first, features, targets(), [[1, 2]] * len(features))) <= {1, 2}


def test_tokens_get_the_length_of_words() -> None:
    net, (features, labels) = projector(), data(3)
    align(net, features, labels, targets(), 60, batch=32)
    with torch.no_grad():
        lengths = net(features).norm(dim=-1).mean()
    assert 0.5 < float(lengths / targets().norm(dim=-1).mean()) < 1.5
