"""A common view of the frozen module in a LiME layer: sizes, weight [H, D], bias, and products with its input.

Supported are `nn.Linear`, GPT-2's `Conv1D`, whose weight is transposed, and `nn.Embedding`, whose D inputs are the
tokens of the vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.pytorch_utils import Conv1D

from lime_edge.errors import ConfigError

_NAMES = "torch.nn.Linear, torch.nn.Embedding and Conv1D"


def features(layer: nn.Module) -> tuple[int, int]:
    """D and H of a module.

    Raises:
        ConfigError: The module has an unsupported type.
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
    """W [H, D] such that the module computes W x + bias; for an embedding x is one-hot."""
    stored = layer.get_parameter("weight")
    if isinstance(layer, nn.Embedding):
        return stored.T * getattr(layer, "embed_scale", 1.0)  # Gemma scales its embeddings
    return stored.T if isinstance(layer, Conv1D) else stored


def bias(layer: nn.Module) -> Tensor | None:
    """The bias [H], or None."""
    found: Tensor | None = getattr(layer, "bias", None)
    return found


def product(layer: nn.Module, x: Tensor, matrix: Tensor) -> Tensor:
    """The module's input times matrix.T.

    Args:
        layer: The frozen module.
        x: [..., D]; for an embedding, token ids [...].
        matrix: [r, D].

    Returns:
        [..., r], in the module's dtype.
    """
    if isinstance(layer, nn.Embedding):
        return F.embedding(x, matrix.T).to(layer.weight.dtype)
    return F.linear(x, matrix.to(x.dtype))


def starting_rows(layer: nn.Module, rank: int) -> Tensor:
    """A new A [r, D]: Kaiming-uniform (a = sqrt(5)), that is uniform with bound 1 / sqrt(D).

    For an embedding the bound is 1, because only one of its inputs is 1 and the others are 0.
    """
    depth = features(layer)[0]
    bound = 1.0 if isinstance(layer, nn.Embedding) else depth**-0.5
    return torch.empty(rank, depth).uniform_(-bound, bound)
