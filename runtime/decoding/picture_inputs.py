"""What the graph reads of pictures: features in place of embeddings, and positions in rows and columns."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from lime_edge.contract.names import FEATURE_IDS, FEATURES
from lime_edge.runtime.model.io_binding import Binding
from lime_edge.runtime.model.session import Graph

Ids = npt.NDArray[np.int64]

_TEXT = np.full((1, 1), -1)  # no token is a feature


def feed_tokens(graph: Graph, binding: Binding, ids: Ids) -> None:
    """Set tokens [b, S] as the input of the next run; ids below zero are features of pictures.

    Nothing else is fed for text, unless the binding fed pictures before.
    """
    if graph.pictures is None or (ids >= 0).all():
        binding.feed(graph.directory.names.input_ids, ids)
        if binding.feeds(FEATURES):
            binding.feed(FEATURE_IDS, _TEXT)
        return
    fed = graph.pictures.feed(ids)
    binding.feed(graph.directory.names.input_ids, fed.ids)
    binding.feed(FEATURE_IDS, fed.feature_ids)
    binding.feed(FEATURES, fed.features)


def positions_in_space(graph: Graph, known: Sequence[Ids], ids: Ids, plain: Ids) -> Ids:
    """Positions of tokens in time, rows and columns, [3, b, S].

    Args:
        known: The ids before, of each row.
        ids: [b, S].
        plain: [b, S], the indices of these tokens.
    """
    made = np.repeat(plain[None], 3, axis=0)
    for row, before in enumerate(known):
        whole = np.concatenate([before, ids[row]])
        if graph.pictures is not None and (whole < 0).any():
            made[:, row] = graph.pictures.positions(whole)[:, len(before) :]
    return made
