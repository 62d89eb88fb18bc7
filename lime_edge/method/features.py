"""Puts the features of pictures into the arguments of a model's call, as the graph's inputs of the same names do.

Every family takes embeddings in place of token ids, so that one function serves all, and a frozen tower need not run.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lime_edge.errors import ConfigError


def with_features(model: nn.Module, given: Mapping[str, Any], features: Tensor, places: Tensor) -> dict[str, Any]:
    """Replace the token ids of a call by embeddings in which features stand.

    Args:
        model: A transformers model.
        given: Arguments by name, with input_ids [B, S].
        features: Features of all pictures of the call, [F, H].
        places: Index of the feature at each token, [B, S' <= S]; -1 is text. Tokens inserted in front are text.

    Returns:
        A new dictionary of arguments.

    Raises:
        ConfigError: The call has no token ids, or a place names a feature that is not there.
    """
    ids = given.get("input_ids")
    if ids is None:
        raise ConfigError("features take the places of input_ids, which this call lacks")
    if len(features) <= int(places.max()):
        raise ConfigError(f"a token names the feature {int(places.max())}; the call has {len(features)}")
    embed: Any = model.get_input_embeddings()  # type: ignore[operator]
    embedded: Tensor = embed(ids)
    before = ids.shape[1] - places.shape[1]
    at = nn.functional.pad(places, (before, 0), value=-1)[..., None]  # [B, S, 1]
    picked = features.to(embedded.dtype)[at[..., 0].clamp_min(0)]
    rest = {name: value for name, value in given.items() if name != "input_ids"}
    return rest | {"inputs_embeds": torch.where(at >= 0, picked, embedded)}
