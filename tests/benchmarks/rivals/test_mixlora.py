"""MixLoRA: its blocks and its attention against the definitions in numpy."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from benchmarks.rivals.mixlora import MixBlock, PlainLora
from benchmarks.rivals.scaffold import Call
from tests.benchmarks.support.rival_layers import (
    SETTINGS,
    Array,
    D,
    H,
    arrays,
    frozen,
    inputs,
    layer,
    lora,
    slopes,
    top,
)
from tests.reference import softmax


def test_mixlora_is_experts_that_are_whole_blocks() -> None:
    torch.manual_seed(5)
    block = nn.Module()
    block.gate_proj, block.up_proj = nn.Linear(D, H, bias=False), nn.Linear(D, H, bias=False)
    block.down_proj, block.act_fn = nn.Linear(H, D, bias=False), nn.SiLU()
    made = MixBlock(block, SETTINGS, Call())
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.copy_(torch.randn(parameter.shape))
    made, x = made.double().eval(), inputs()
    held = arrays(made)

    def part(name: str, expert: int, value: Array) -> Array:
        adapted = held[f"block.{name}.weight"] + 1.5 * held[f"b.{name}"][expert] @ held[f"a.{name}"][expert]
        result: Array = adapted @ value
        return result

    def defined(token: Array) -> Array:
        w = top(softmax(held["router"] @ token), 2)
        out = np.zeros(D)
        for e in range(3):
            gate = part("gate_proj", e, token)
            out += w[e] * part("down_proj", e, gate / (1 + np.exp(-gate)) * part("up_proj", e, token))
        return out

    wanted = np.stack([[defined(token) for token in row] for row in x.numpy()])
    np.testing.assert_allclose(made(x).detach().numpy(), wanted, rtol=1e-5, atol=1e-5 * np.abs(wanted).max())
    for name in ("router", "a.gate_proj", "b.up_proj", "a.down_proj", "b.down_proj"):
        made.zero_grad()
        parameter = dict(made.named_parameters())[name]
        found = slopes(made, x, parameter, 1e-4)
        assert parameter.grad is not None
        np.testing.assert_allclose(parameter.grad.numpy(), found, rtol=2e-3, atol=2e-3 * np.abs(found).max())


def test_mixlora_has_plain_lora_in_its_attention() -> None:
    made, x = layer(PlainLora), inputs()
    held = arrays(made)
    wanted = np.stack([[frozen(held, token) + lora(held, token, 0) for token in row] for row in x.numpy()])
    np.testing.assert_allclose(made(x).detach().numpy(), wanted, rtol=1e-9)
