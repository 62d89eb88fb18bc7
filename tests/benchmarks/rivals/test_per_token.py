"""Mixtures that route tokens: values, gradients and numbers of parameters against their papers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks.rivals.mixlora import PlainLora
from benchmarks.rivals.per_token import HydraLora, MoeDora, MoeLora, MoeLoraFA, Mola, allocate
from benchmarks.rivals.scaffold import Adapted, Call, Settings
from tests.benchmarks.support.rival_layers import (
    SETTINGS,
    Array,
    Defined,
    H,
    Held,
    check_gradients,
    check_values,
    frozen,
    inputs,
    layer,
    lora,
    slopes,
    top,
)
from tests.reference import softmax


def moelora(held: Held, x: Array, row: int) -> Array:
    w = top(softmax(held["gate"] @ x), 2)
    return frozen(held, x) + sum(w[e] * lora(held, x, e) for e in range(3)) + lora(held, x, 3)  # type: ignore[no-any-return]


def mola(held: Held, x: Array, row: int) -> Array:
    w = top(softmax(held["gate"] @ x), 2)
    return frozen(held, x) + sum(w[e] * lora(held, x, e) for e in range(3))  # type: ignore[no-any-return]


def moedora(held: Held, x: Array, row: int) -> Array:
    w = top(softmax(held["gate"] @ x), 2)
    out = np.zeros(H) + held.get("base.bias", 0)
    for e in range(3):
        adapted = held["base.weight"] + SETTINGS.scaling * held["b"][e] @ held["a"][e]
        norms = np.linalg.norm(adapted, axis=1)
        out = out + w[e] * (held["magnitude"][e] / norms) * (adapted @ x)
    return out + lora(held, x, 3)


def hydralora(held: Held, x: Array, row: int) -> Array:
    w = softmax(held["gate"] @ x)
    low = held["a"][0] @ x
    return frozen(held, x) + sum(w[e] * SETTINGS.scaling * held["b"][e] @ low for e in range(3))  # type: ignore[no-any-return]


DEFINED: list[tuple[type[Adapted], Defined]] = [
    (MoeLora, moelora),
    (MoeLoraFA, moelora),
    (MoeDora, moedora),
    (HydraLora, hydralora),
    (Mola, mola),
]
NAMES = [kind.__name__ for kind, _ in DEFINED]
#: Parameters whose gradient differs from the slope by design: DoRA's norms are constants.
CONSTANT: dict[type[Adapted], set[str]] = {MoeDora: {"a", "b"}}


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("kind", "defined"), DEFINED, ids=NAMES)
def test_values_are_those_of_the_paper(kind: type[Adapted], defined: Defined, bias: bool) -> None:
    check_values(kind, defined, bias)


@pytest.mark.parametrize("kind", [kind for kind, _ in DEFINED], ids=NAMES)
def test_gradients_are_the_slopes(kind: type[Adapted]) -> None:
    check_gradients(kind, CONSTANT.get(kind, set()))


def test_the_norms_of_moedora_carry_no_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    """With constant norms, the gradients of A and B are the slopes."""
    for name in ("a", "b"):
        made = layer(MoeDora)
        assert isinstance(made, MoeDora)
        norms = made.norms()
        monkeypatch.setattr(made, "norms", lambda norms=norms: norms)
        parameter = dict(made.named_parameters())[name]
        wanted = slopes(made, inputs(), parameter)
        assert parameter.grad is not None
        np.testing.assert_allclose(parameter.grad.numpy(), wanted, rtol=2e-3, atol=2e-3 * np.abs(wanted).max())


def test_lora_fa_keeps_its_down_projections() -> None:
    names = {name for name, p in layer(MoeLoraFA).named_parameters() if p.requires_grad and "base" not in name}
    assert names == {"b", "gate"}


def test_mola_gives_higher_layers_more_experts() -> None:
    assert [allocate(f"model.layers.{i}.self_attn.q_proj", 32, 5) for i in (0, 8, 16, 31)] == [2, 4, 6, 8]
    assert [allocate(f"model.layers.{i}.self_attn.q_proj", 32, 4) for i in (0, 8, 16, 31)] == [2, 3, 5, 6]
    with pytest.raises(ValueError, match="in no layer"):
        allocate("lm_head", 32, 4)


# Shapes of LLaVA-OneVision-Qwen2-7B's adapted modules: 28 decoder layers and 26 layers of the vision tower.
LLAVA = [(3584, 3584), (3584, 512), (3584, 512), (3584, 3584)] * 28 + [(1152, 1152)] * 4 * 26
QWEN_SMALL = [(896, 896), (896, 128), (896, 128), (896, 896)] * 24  # of the figure on efficiency
PRINTED: list[tuple[type[Adapted], Any, float, float]] = [
    (MoeLora, LLAVA, 10.79e6, 0.005e6),
    (MoeDora, LLAVA, 12.19e6, 0.005e6),
    (HydraLora, LLAVA, 5.92e6, 0.005e6),
    (Mola, LLAVA, 9.04e6, 0.01e6),  # 9.048M here; printed rounded down, or for unequal layers
    (PlainLora, LLAVA, 1.74e6, 0.005e6),
    (MoeLora, QWEN_SMALL, 1.70e6, 0.005e6),
    (MoeDora, QWEN_SMALL, 1.89e6, 0.005e6),
]


@pytest.mark.parametrize(("kind", "modules", "printed", "rounding"), PRINTED)
def test_numbers_of_parameters_are_those_printed(
    kind: type[Adapted], modules: list[tuple[int, int]], printed: float, rounding: float
) -> None:
    total = 0
    for shape in modules:
        with torch.device("meta"):
            made = kind(nn.Linear(*shape), Settings(), Call())
        total += sum(p.numel() for name, p in made.named_parameters() if "base" not in name)
    assert abs(total - printed) <= rounding
