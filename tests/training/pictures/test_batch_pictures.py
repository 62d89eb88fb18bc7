"""Pictures of a left-padded batch: features of all rows, and where each of them stands."""

from __future__ import annotations

import torch

from lime_edge.training.pictures.batch_pictures import batch_pictures
from lime_edge.training.pictures.picture_features import Pictures

POSITIONS = torch.tensor([[0, 0, 1, 2, 3], [0, 0, 0, 0, 1], [0, 1, 2, 3, 4]])
FIRST = Pictures((-1, 0, 1), torch.ones(2, 4))
THIRD = Pictures((0, -1, -1, 1), 2 * torch.ones(2, 4))


def test_places_count_through_the_features_of_all_rows() -> None:
    found = batch_pictures([FIRST, None, THIRD], [4, 2, 5], POSITIONS)
    assert found["feature_ids"].tolist() == [
        [-1, -1, 0, 1, -1],  # padding, two features after a token of text, one token of the answer
        [-1, -1, -1, -1, -1],
        [2, -1, -1, 3, -1],
    ]
    assert found["features"][:, 0].tolist() == [1, 1, 2, 2]
    assert set(found) == {"features", "feature_ids"}


def test_a_batch_of_text_has_no_features() -> None:
    assert batch_pictures([None, None, None], [4, 2, 5], POSITIONS) == {}


def test_positions_in_three_dimensions_continue_after_the_prompt() -> None:
    spatial = torch.tensor([[0, 1, 1], [0, 1, 1], [0, 1, 2]])
    row = Pictures(FIRST.places, FIRST.features, spatial, delta=-1)
    found = batch_pictures([row, None, None], [4, 2, 5], POSITIONS)["position_ids"]
    assert found[:, 0].tolist() == [[0, 0, 1, 1, 2], [0, 0, 1, 1, 2], [0, 0, 1, 2, 2]]
    assert found[:, 1].tolist() == [POSITIONS[1].tolist()] * 3
