"""The pictures of a left-padded batch: features, their places, and positions in three dimensions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from .picture_features import Pictures


def batch_pictures(rows: Sequence[Pictures | None], lengths: Sequence[int], position_ids: Tensor) -> dict[str, Tensor]:
    """Arguments of a wrapped model for the pictures of a batch.

    Args:
        rows: Pictures of each row's prompt; None for text.
        lengths: Tokens of each row, answer included.
        position_ids: Positions of text, [B, S].

    Returns:
        ``features`` [F, H] of all rows and ``feature_ids`` [B, S], whose -1 is text; with a model whose positions have
        three dimensions also ``position_ids`` [3, B, S]. Nothing if no row has a picture.
    """
    shown = [row for row in rows if row is not None]
    if not shown:
        return {}
    count, longest = position_ids.shape
    places = torch.full((count, longest), -1)
    spatial = position_ids.expand(3, -1, -1).clone()
    before = 0
    for i, (row, length) in enumerate(zip(rows, lengths, strict=True)):
        if row is None:
            continue
        begin, own = longest - length, torch.tensor(row.places)
        prompt = slice(begin, begin + len(own))
        places[i, prompt] = torch.where(own >= 0, own + before, -1)
        before += len(row.features)
        if row.positions is not None:
            spatial[:, i, prompt] = row.positions
            spatial[:, i, prompt.stop :] += row.delta
    found = {"features": torch.cat([row.features for row in shown]), "feature_ids": places}
    return found | ({"position_ids": spatial} if shown[0].positions is not None else {})
