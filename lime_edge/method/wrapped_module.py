"""The frozen module under a LiME layer: its sizes, its weight as [H, D], and how its input meets a matrix [r, D].

`nn.Linear`, `Conv1D` (GPT-2's, whose weight lies the other way round) and `nn.Embedding`, whose D inputs are
the tokens of the vocabulary. Knows nothing of LiME.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.pytorch_utils import Conv1D

from lime_edge.errors import ConfigError

_NAMES = "torch.nn.Linear, torch.nn.Embedding and Conv1D"


def features(layer: nn.Module) -> tuple[int, int]:
    """D and H.

    Raises:
        ConfigError: it is none of the three.
    """
    if isinstance(layer, nn.Linear):
        return layer.in_features, layer.out_features
    if isinstance(layer, nn.Embedding):
        return layer.num_embeddings, layer.embedding_dim
    if isinstance(layer, Conv1D):
        inputs, outputs = layer.weight.shape
        return int(inputs), int(outputs)
    raise ConfigError(f"LiME adapts {_NAMES}, not {type(layer).__name__}; name other target_modules")


def weight(layer: nn.Module) -> Tensor:
    """W [H, D] such that the module computes W x + bias; an embedding's x is one-hot."""
    held = layer.get_parameter("weight")
    if isinstance(layer, nn.Embedding):
        return held.T * getattr(layer, "embed_scale", 1.0)  # Gemma's embeddings are scaled
    return held.T if isinstance(layer, Conv1D) else held


def bias(layer: nn.Module) -> Tensor | None:
    """[H], or None."""
    held: Tensor | None = getattr(layer, "bias", None)
    return held


def product(layer: nn.Module, x: Tensor, matrix: Tensor) -> Tensor:
    """The module's input times matrix.T.

    Args:
        layer: The frozen module.
        x: [..., D]; of an embedding token ids [...].
        matrix: [r, D].

    Returns:
        [..., r], in the module's type.
    """
    if isinstance(layer, nn.Embedding):
        return F.embedding(x, matrix.T).to(layer.weight.dtype)
    return F.linear(x, matrix.to(x.dtype))


def starting_rows(layer: nn.Module, rank: int) -> Tensor:
    """A fresh A [r, D] in which every input counts alike: Kaiming-uniform (a = sqrt(5)), bound 1 / sqrt(D).

    Of an embedding's inputs one is 1 and the others 0; a bound of 1 gives its A x the same size.
    """
    depth = features(layer)[0]
    bound = 1.0 if isinstance(layer, nn.Embedding) else depth**-0.5
    return torch.empty(rank, depth).uniform_(-bound, bound)
