"""Routing in torch equals its definition; padding and later tokens do not affect it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from lime_edge.contract.routing import MODES, Mode, Routing
from lime_edge.method.routing import balance_losses, evidence, expert_use, select, window_mean, with_flag
from tests import reference
from tests.support.layer_case import clear


def random(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).standard_normal(shape)


@pytest.mark.parametrize("experts", [1, 2, 4, 8])
def test_evidence_is_the_definition(experts: int) -> None:
    routing = Routing(experts=experts, gamma=0.3)
    y, d = random(7, 11), random(7, 11, seed=1)
    wanted = np.stack([reference.evidence(*pair, routing) for pair in zip(y, d, strict=True)])
    found = evidence(torch.tensor(y, dtype=torch.float32), torch.tensor(d, dtype=torch.float32), routing)
    np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-5, atol=1e-6)


def test_evidence_of_nothing_is_zero_and_has_a_finite_gradient() -> None:
    y, d = torch.zeros(2, 3, 8), torch.zeros(2, 3, 8, requires_grad=True)
    found = evidence(y, d, Routing())
    torch.autograd.backward(found.sum())
    assert torch.equal(found, torch.zeros(2, 3, 4))
    assert d.grad is not None
    assert bool(torch.isfinite(d.grad).all())


def test_evidence_is_float32_whatever_comes_in() -> None:
    found = evidence(torch.randn(2, 3, 8).bfloat16(), torch.randn(2, 3, 8).bfloat16(), Routing())
    assert found.dtype == torch.float32


def test_token_scale_knows_no_other_token_and_batch_scale_does() -> None:
    y, d = torch.tensor(random(2, 5, 8)), torch.tensor(random(2, 5, 8, seed=1))
    louder = y.clone()
    louder[1, 4] *= 100  # a token of another row
    routing = Routing()
    token = [evidence(v, d, routing, "token") for v in (y, louder)]
    batch = [evidence(v, d, routing, "batch") for v in (y, louder)]
    assert torch.equal(token[0][0], token[1][0])
    assert not torch.allclose(batch[0][0], batch[1][0], atol=0.1)
    assert not torch.allclose(batch[0], token[0], atol=0.01)
    torch.testing.assert_close(batch[0], 0.3 * (y / y[..., :4].abs().max())[..., :4].float()
                               + 0.7 * (d / d[..., :4].abs().max())[..., :4].float())  # fmt: skip


@pytest.mark.parametrize("window", [1, 2, 3, 4])
@pytest.mark.parametrize("length", [1, 2, 7])
def test_window_mean_is_the_definition(window: int, length: int) -> None:
    logits = random(3, length, 4)
    wanted = np.stack([reference.window_mean(row, np.zeros((0, 4)), window) for row in logits])
    np.testing.assert_allclose(window_mean(torch.tensor(logits), window).numpy(), wanted, rtol=1e-12)


@pytest.mark.parametrize("window", [2, 3, 4])
@pytest.mark.parametrize("known", [1, 2, 5])
def test_window_mean_goes_on_from_the_past(window: int, known: int) -> None:
    logits = torch.tensor(random(2, 9, 4))
    flagged = with_flag(logits[:, :known], None)
    empty = torch.zeros(2, max(0, window - 1 - known), 5, dtype=logits.dtype)
    past = torch.cat([empty, flagged[:, -(window - 1) :]], 1)
    found = window_mean(logits[:, known:], window, past)
    torch.testing.assert_close(found, window_mean(logits, window)[:, known:], rtol=1e-12, atol=0)


@pytest.mark.parametrize("window", [1, 2, 3, 4])
def test_padding_takes_part_in_no_window(window: int) -> None:
    logits = torch.tensor(random(1, 5, 4))
    noise = torch.full((1, 3, 4), 1e3, dtype=logits.dtype)
    wanted = window_mean(logits, window)
    left = window_mean(torch.cat([noise, logits], 1), window, real=torch.tensor([[0] * 3 + [1] * 5]).bool())
    right = window_mean(torch.cat([logits, noise], 1), window, real=torch.tensor([[1] * 5 + [0] * 3]).bool())
    torch.testing.assert_close(left[:, 3:], wanted, rtol=1e-12, atol=0)
    torch.testing.assert_close(right[:, :5], wanted, rtol=1e-12, atol=0)
    assert bool(torch.isfinite(left).all())


@pytest.mark.parametrize("window", [2, 3])
def test_windows_look_back_only(window: int) -> None:
    logits = torch.tensor(random(1, 6, 4))
    changed = logits.clone()
    changed[:, 4] += 1
    before, after = window_mean(logits, window), window_mean(changed, window)
    assert torch.equal(before[:, :4], after[:, :4])
    assert not torch.allclose(before[:, 4:], after[:, 4:])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("experts", [1, 2, 4, 8])
@pytest.mark.parametrize("top_k", [1, 2, 3])
def test_selection_is_the_definition(mode: Mode, experts: int, top_k: int) -> None:
    routing = Routing(experts=experts, mode=mode, top_k=top_k, theta=0.4, temperature=0.6, softness=0.3)
    logits = random(60, experts, seed=experts)
    fine = clear(logits, routing)
    assert fine.mean() > 0.9
    weights, prob = select(torch.tensor(logits, dtype=torch.float32), routing)
    wanted = np.stack([reference.select(token, routing) for token in logits])
    np.testing.assert_allclose(weights.numpy()[fine], wanted[fine], rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(weights.sum(-1).numpy(), 1, rtol=1e-6)
    softmax = np.stack([reference.softmax(token / 0.6) for token in logits])
    np.testing.assert_allclose(prob.numpy(), softmax, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("mode", MODES)
def test_experts_that_tie_are_all_kept(mode: Mode) -> None:
    weights, _ = select(torch.zeros(1, 4), Routing(mode=mode, top_k=1))
    np.testing.assert_allclose(weights.numpy(), 0.25)


def test_auto_keeps_more_experts_when_unsure() -> None:
    routing = Routing(mode="auto", theta=0.5)
    (sure, unsure), _ = select(torch.tensor([[3.0, 0, 0, 0], [0.3, 0.2, 0, 0.1]]), routing)
    assert int((sure > 0).sum()) == 1
    assert int((unsure > 0).sum()) > 2


@pytest.mark.parametrize("experts", [1, 2, 4, 8])
def test_balance_losses_are_the_definition_and_skip_padding(experts: int) -> None:
    prob = np.stack([[reference.softmax(t) for t in row] for row in random(3, 6, experts)])
    real = np.arange(6)[None] < np.array([[6], [2], [4]])
    for where in (real, None):
        wanted = reference.balance_losses(prob, np.ones_like(real) if where is None else where)
        found = balance_losses(expert_use(torch.tensor(prob), None if where is None else torch.tensor(where)))
        np.testing.assert_allclose([float(one) for one in found], wanted, rtol=1e-5, atol=1e-9)
    assert experts == 1 or reference.balance_losses(prob, real) != pytest.approx(wanted, rel=1e-3)


def test_balance_losses_are_zero_when_experts_share_evenly() -> None:
    found = balance_losses(expert_use(torch.full((2, 3, 4), 0.25)))
    np.testing.assert_allclose([float(one) for one in found], 0, atol=1e-6)
