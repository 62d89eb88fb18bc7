"""Parts that mixtures share: top-k selection and the load-balancing loss."""

from __future__ import annotations

import pytest
import torch

from benchmarks.rivals.scaffold import keep_top, load_balance


def test_the_largest_probabilities_are_kept() -> None:
    prob = torch.tensor([[0.5, 0.1, 0.3, 0.1], [0.0, 0.2, 0.2, 0.6]])
    torch.testing.assert_close(keep_top(prob, 2)[0], torch.tensor([0.625, 0.0, 0.375, 0.0]))
    assert int((keep_top(prob, 2)[1] > 0).sum()) == 2  # ties too
    assert torch.equal(keep_top(prob, 4), prob)


def test_load_balance_is_one_when_even_and_sees_no_padding() -> None:
    even = torch.full((1, 4, 4), 0.25)
    chosen = torch.eye(4)[None]
    assert float(load_balance(even, chosen, None)) == pytest.approx(1)
    prob = torch.tensor([[[0.7, 0.3], [0.6, 0.4], [0.0, 1.0]]])
    weights = torch.tensor([[[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]])
    assert float(load_balance(prob, weights, torch.tensor([[1, 1, 0]]))) == pytest.approx(2 * 0.65)
