"""Rivals that compute one expert after the other give the same outputs as the batched ones."""

from __future__ import annotations

import pytest
import torch

from benchmarks.rivals.per_token import HydraLora, MoeLora
from benchmarks.rivals.scaffold import Adapted
from benchmarks.speed.train_speed import LoopedHydraLora, LoopedMoeLora, batch
from tests.benchmarks.support.rival_layers import inputs, layer


@pytest.mark.parametrize(("looped", "batched"), [(LoopedMoeLora, MoeLora), (LoopedHydraLora, HydraLora)])
def test_looped_experts_compute_what_batched_ones_do(looped: type[Adapted], batched: type[Adapted]) -> None:
    torch.testing.assert_close(layer(looped)(inputs()), layer(batched)(inputs()))


def test_a_batch_has_a_loss_on_a_twelfth_of_its_tokens() -> None:
    made = batch(2, 48, 300)
    assert made["labels"].shape == (2, 4)
    assert torch.equal(made["labels"], made["input_ids"][:, made["logits_to_keep"]])
