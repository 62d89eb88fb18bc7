"""SignalAdamW: its formula, and how it compares with AdamW on consistent and on noisy gradients."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lime_edge.training.plan import OPTIMIZERS, Optimizer
from lime_edge.training.signal_adamw import SignalAdamW


def run(kind: Optimizer, grads: torch.Tensor, **options: float) -> torch.Tensor:
    """The value of a parameter that starts at 1, after steps with these gradients."""
    parameter = torch.nn.Parameter(torch.ones_like(grads[0]))
    optimizer = OPTIMIZERS[kind]([parameter], **options)
    for grad in grads:
        parameter.grad = grad.clone()
        optimizer.step()
    return parameter.detach()


def test_the_formula() -> None:
    grads = torch.randn(5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x, m, v = np.ones(3), np.zeros(3), np.zeros(3)
    for t, g in enumerate(grads.numpy(), 1):
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        first, second = m / (1 - 0.9**t), v / (1 - 0.999**t)
        x = x * (1 - 0.05 * 0.5) - 0.05 * first * np.abs(first) / second
    assert run("signal", grads, lr=0.05, weight_decay=0.5).numpy() == pytest.approx(x, abs=1e-6)


def test_gradients_that_agree_move_as_with_adamw() -> None:
    grads = torch.tensor([[0.3, -2.0, 70.0]]).expand(20, -1)
    options = {"lr": 0.1, "weight_decay": 0.2}
    torch.testing.assert_close(run("signal", grads, **options), run("adamw", grads, **options))


def test_noise_wanders_less_than_with_adamw() -> None:
    grads = torch.randn(200, 1000, generator=torch.Generator().manual_seed(1))
    moved = {kind: float((run(kind, grads, lr=0.01) - 1).square().mean().sqrt()) for kind in OPTIMIZERS}
    assert 0 < 2 * moved["signal"] < moved["adamw"]


def test_no_gradient_no_step_and_zeros_stay() -> None:
    idle, still = torch.nn.Parameter(torch.ones(2)), torch.nn.Parameter(torch.ones(2))
    still.grad = torch.zeros(2)
    SignalAdamW([idle, still], lr=0.1).step()
    assert torch.equal(idle.detach(), torch.ones(2))
    assert torch.equal(still.detach(), torch.ones(2))


def test_it_goes_on_from_its_state() -> None:
    grads = torch.randn(6, 4, generator=torch.Generator().manual_seed(2))
    whole = run("signal", grads, lr=0.1)
    first = torch.nn.Parameter(torch.ones(4))
    optimizer = SignalAdamW([first], lr=0.1)
    for i, grad in enumerate(grads):
        if i == 3:
            second = torch.nn.Parameter(first.detach().clone())
            again = SignalAdamW([second], lr=0.7)
            again.load_state_dict(optimizer.state_dict())
            first, optimizer = second, again
        first.grad = grad.clone()
        optimizer.step(lambda: 1.0)
    assert torch.equal(first.detach(), whole)
