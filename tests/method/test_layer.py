"""The LiME layer equals its definition, in values and gradients; padding and other rows do not change its output."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from lime_edge.contract.routing import MODES, Mode, Routing
from lime_edge.contract.vector_kinds import KINDS
from lime_edge.method.routing import select
from lime_edge.method.variants import LimeLora
from lime_edge.training.checkpoint import tuner
from tests.support.layer_case import check, close, make
from tests.support.tiny_training import EXPERTS, ids, logits, wrapped


@pytest.mark.parametrize("rank_gate", [False, True])
@pytest.mark.parametrize("window", [1, 2, 3, 4])
@pytest.mark.parametrize("experts", [1, 2, 4, 8])
@pytest.mark.parametrize("mode", MODES)
def test_layer_is_the_definition(mode: Mode, experts: int, window: int, rank_gate: bool) -> None:
    routing = Routing(experts=experts, mode=mode, window=window, top_k=1 + window % 3)
    seed = 10 * window + experts
    layer, _ = make(routing, seed, rank_gate, bias=experts in (1, 4), shared=window in (1, 4))
    check(layer, seed)


@pytest.mark.parametrize(("bias", "shared"), [(False, False), (False, True), (True, False), (True, True)])
def test_layer_is_the_definition_over_seeds(bias: bool, shared: bool) -> None:
    for seed in range(100, 104):
        layer, _ = make(Routing(window=2), seed, True, bias, shared)
        check(layer, seed)


def test_a_wrong_gradient_is_noticed() -> None:
    layer, _ = make(Routing(), 0, False, False, False)
    layer.lime_gain["a"].register_hook(lambda gradient: gradient * (1 + 1e-3))
    with pytest.raises(AssertionError, match="gain"):
        check(layer, 0)


def test_noise_is_for_training_alone() -> None:
    layer, context = make(EXPERTS, 0, False, False, False)
    x = torch.randn(2, 5, layer.in_features)
    assert torch.equal(layer(x), layer(x))
    layer.train()
    assert not torch.equal(layer(x), layer(x))
    assert context.balance_loss((0.1, 0.01)) is not None
    layer.lime_config["a"].jitter = 0.0
    assert torch.equal(layer(x), layer(x))
    assert torch.equal(layer(x), layer.eval()(x))


def test_bfloat16_input_gives_bfloat16_output_and_float32_gradients() -> None:
    layer, _ = make(EXPERTS, 0, True, True, True)
    layer.base_layer.to(torch.bfloat16)
    out = layer(torch.randn(2, 3, layer.in_features, dtype=torch.bfloat16))
    out.float().sum().backward()
    assert out.dtype == torch.bfloat16
    assert isinstance(layer, LimeLora)
    assert layer.lime_A["a"].grad.dtype == torch.float32


# -- in a language model ---------------------------------------------------------------------------


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_changes_nothing(model: Any, side: str) -> None:
    tokens, pad = ids(2, 7), torch.full((2, 5), 2)
    wanted = logits(model, tokens)
    left = side == "left"
    padded = torch.cat([pad, tokens] if left else [tokens, pad], 1)
    mask = torch.zeros_like(padded)
    where = slice(5, 12) if left else slice(0, 7)
    mask[:, where] = 1
    places = (mask.cumsum(1) - 1).clamp_min(0)
    close(logits(model, padded, attention_mask=mask, position_ids=places)[:, where], wanted)
    # the mask can also be a positional argument
    with torch.no_grad():
        close(model.base_model(padded, mask, places).logits[:, where], wanted)


def test_a_row_alone_is_the_row_in_a_batch(model: Any) -> None:
    tokens = ids(4, 9)
    together = logits(model, tokens)
    for row in range(4):
        close(logits(model, tokens[row : row + 1])[0], together[row])


def test_rows_of_different_length_in_one_batch(model: Any) -> None:
    lengths, longest = (3, 8, 5), 8
    rows = [ids(1, n, seed=n)[0] for n in lengths]
    padded, mask = torch.full((3, longest), 2), torch.zeros(3, longest, dtype=torch.long)
    for i, row in enumerate(rows):
        padded[i, longest - len(row) :] = row
        mask[i, longest - len(row) :] = 1
    places = (mask.cumsum(1) - 1).clamp_min(0)
    found = logits(model, padded, attention_mask=mask, position_ids=places)
    for i, row in enumerate(rows):
        close(found[i, longest - len(row) :], logits(model, row[None])[0])


def test_a_skill_of_zeros_is_bit_for_bit_the_base(model: Any) -> None:
    zero = wrapped(routing=tuner(model).lime_config.routing)
    for layer in tuner(zero).layers().values():
        for kind in ("expert", "gain", "shift"):
            torch.nn.init.zeros_(getattr(layer, f"lime_{kind}")["default"])
    tokens = ids(2, 9)
    found = logits(zero, tokens)
    with zero.disable_adapter():
        assert torch.equal(found, logits(zero, tokens))


def test_later_tokens_and_other_rows_change_nothing(model: Any) -> None:
    tokens = ids(2, 9)
    other = tokens.clone()
    other[0, 6:] = 7
    other[1] = 8
    close(logits(model, other)[0, :6], logits(model, tokens)[0, :6])


def test_batch_scale_lets_the_future_in_as_published() -> None:
    model = wrapped(routing_scale="batch")
    tokens = ids(1, 9)
    other = tokens.clone()
    other[0, 6:] = 7
    apart = (logits(model, other)[0, :6] - logits(model, tokens)[0, :6]).abs().max()
    assert float(apart) > 1e-3


def test_gradients_reach_every_parameter_but_the_backbone() -> None:
    model = wrapped(kinds=KINDS, shared_vector=True).train()
    tokens = ids(2, 9)
    model(input_ids=tokens, labels=tokens).loss.backward()
    without = {name for name, p in model.named_parameters() if p.grad is None or not bool(p.grad.any())}
    assert without == {name for name, _ in model.named_parameters() if "lime_" not in name}


def test_selection_of_one_expert_is_free() -> None:
    layer, context = make(Routing(experts=1), 0, False, False, False)
    layer.train()
    layer(torch.randn(1, 2, layer.in_features))
    assert context.balance_loss((1, 1)) is None
    assert select(torch.zeros(1, 1), Routing(experts=1))[0].item() == 1


@pytest.mark.parametrize("experts", [1, 3])
@pytest.mark.parametrize("shape", [(4,), (2, 5), (2, 3, 2)])
def test_other_ranks_are_rows_of_tokens(shape: tuple[int, ...], experts: int) -> None:
    """[B, D] and [B, height, width, D], as in encoders of images, against [B, S, D]."""
    layer, _ = make(Routing(experts=experts), 0, True, True, False)
    x = torch.randn(*shape, layer.in_features)
    rows = x.reshape(shape[0], -1, layer.in_features)
    assert torch.equal(layer(x), layer(rows).reshape(*shape, -1))
    assert layer(x).shape == (*shape, layer.out_features)
