"""Plain attention in short training steps on a CPU: the same gradients, and the setting is restored."""

from __future__ import annotations

from typing import cast

import pytest
import torch
from torch import Tensor

from lime_edge.training.attention import plain_if_short
from tests.support.tiny_training import backbone


def gradient(length: int, plain: bool) -> Tensor:
    net = backbone().requires_grad_(True)
    ids = torch.randint(3, 40, (2, length), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[0, :3] = 0
    labels = ids.clone()
    labels[0, :4] = -100  # padding has no label
    context = plain_if_short(net, ids) if plain else torch.enable_grad()
    with context:
        net(input_ids=ids, attention_mask=mask, labels=labels).loss.backward()
    return cast(Tensor, net.model.layers[0].self_attn.q_proj.weight.grad)


def test_plain_and_fused_attention_have_the_same_gradient() -> None:
    torch.testing.assert_close(gradient(9, True), gradient(9, False), rtol=1e-4, atol=1e-7)


def test_only_short_steps_are_plain_and_only_while_they_run() -> None:
    net = backbone().requires_grad_(True)
    before = net.config._attn_implementation
    with plain_if_short(net, torch.ones(1, 256)):
        assert net.config._attn_implementation == "eager"
    assert net.config._attn_implementation == before
    with plain_if_short(net, torch.ones(1, 257)):
        assert net.config._attn_implementation == before == "sdpa"
    with pytest.raises(RuntimeError), plain_if_short(net, torch.ones(1, 5)):
        raise RuntimeError
    assert net.config._attn_implementation == before
