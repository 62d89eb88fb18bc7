"""Modulation equals the formula in values and gradients, and saves fewer arrays for the backward pass."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import product
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from lime_edge.method.modulation import experts, film, modulate

ROWS, TOKENS, WIDTH, RANK = 2, 5, 7, 3
KINDS = [kinds for kinds in product([True, False], repeat=3) if any(kinds)]


class Given(NamedTuple):
    """Arguments of the formula."""

    y: Tensor
    low: Tensor
    matrix: Tensor
    weights: Tensor
    expert: Tensor | None
    gain: Tensor | None
    shift: Tensor | None


def given(kinds: Sequence[bool], count: int, dtype: torch.dtype, one_row: bool = False) -> Given:
    """Random y, low, matrix, weights, p, u, b; the vectors of disabled kinds are None."""
    torch.manual_seed(count)
    weights = torch.rand((1, 1, count) if one_row else (ROWS, TOKENS, count))
    y, low, matrix = torch.randn(ROWS, TOKENS, WIDTH), torch.randn(ROWS, TOKENS, RANK), torch.randn(WIDTH, RANK)
    vectors = [torch.randn(count, WIDTH) if on else None for on in kinds]
    return leaves([y, low, matrix, weights, *vectors], dtype)


def leaves(tensors: Iterable[Tensor | None], dtype: torch.dtype) -> Given:
    """The same numbers in another dtype, as leaves that require gradients."""
    return Given(*(None if one is None else one.detach().to(dtype).requires_grad_() for one in tensors))  # type: ignore[arg-type]


def as_written(found: Given) -> Tensor:
    """The formula, written with one array for every factor and differentiated by autograd."""
    y, low, matrix, w, p, u, b = found
    mixed = [
        torch.zeros_like(y) if one is None else torch.einsum("bse,eh->bsh", w.expand(*y.shape[:2], -1), one)
        for one in (p, u, b)
    ]
    return y + low @ matrix.T * mixed[0] + y * mixed[1] + mixed[2]


def as_layers_do(*given: Any) -> Tensor:
    y, low, matrix, w, p, u, b = given
    out = film(y, w, u, b)
    return out if p is None else experts(out, low, matrix, w, p)


def gradients(out: Tensor, found: Given) -> list[Tensor | None]:
    weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(out.dtype)
    wanted = [one for one in found if one is not None]
    grads = iter(torch.autograd.grad((out * weights).sum(), wanted, allow_unused=True))
    return [None if one is None else next(grads) for one in found]


@pytest.mark.parametrize("one_row", [False, True])
@pytest.mark.parametrize("experts", [1, 3])
@pytest.mark.parametrize("kinds", KINDS)
def test_values_and_gradients_are_those_of_the_formula(kinds: Sequence[bool], experts: int, one_row: bool) -> None:
    found = given(kinds, experts, torch.float32, one_row)
    out, wanted = as_layers_do(*found), as_written(found)
    torch.testing.assert_close(out, wanted, rtol=1e-6, atol=1e-6)
    for mine, theirs in zip(gradients(out, found), gradients(wanted, found), strict=True):
        if mine is None:  # without p the adapter has no effect
            assert theirs is None or not theirs.any()
        else:
            torch.testing.assert_close(mine, theirs, rtol=1e-6, atol=2e-6)


@pytest.mark.parametrize("one_row", [False, True])
@pytest.mark.parametrize("kinds", KINDS)
def test_gradients_are_the_slopes(kinds: Sequence[bool], one_row: bool) -> None:
    found = given(kinds, 2, torch.float64, one_row)
    leaves_of: Any = tuple(found)
    assert torch.autograd.gradcheck(as_layers_do, leaves_of)


def test_bfloat16_is_within_two_of_its_own_roundings() -> None:
    exact = given((True, True, True), 3, torch.float32)
    found = leaves(exact, torch.bfloat16)
    same = leaves(found, torch.float32)
    out, wanted = as_layers_do(*found), as_written(same)
    largest = float(wanted.detach().abs().max())
    torch.testing.assert_close(out.float(), wanted, rtol=0, atol=2 * 2**-8 * largest)
    for mine, theirs in zip(gradients(out, found), gradients(wanted, same), strict=True):
        assert mine is not None
        assert theirs is not None
        torch.testing.assert_close(mine.float(), theirs, rtol=0, atol=3 * 2**-8 * float(theirs.abs().max()))


def test_only_what_is_asked_for_gets_a_gradient() -> None:
    found = given((True, True, True), 2, torch.float32)
    assert found.gain is not None
    for one in (found.y, found.weights, found.gain):
        one.requires_grad_(False)
    as_layers_do(*found).sum().backward()  # type: ignore[no-untyped-call]
    assert [one is not None and one.grad is not None for one in found] == [False, True, True, False, True, False, True]


def test_it_keeps_less_than_autograd_does() -> None:
    found = given((True, True, False), 2, torch.float32)

    def kept(call: Callable[[], Tensor]) -> int:
        sizes: dict[int, int] = {}

        def pack(tensor: Tensor) -> Tensor:
            sizes[tensor.data_ptr()] = tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            call()
        return sum(sizes.values())

    full = ROWS * TOKENS * WIDTH
    slim = ROWS * TOKENS * (2 * RANK + RANK + 2)  # columns, low, weights
    assert kept(lambda: as_layers_do(*found)) <= full + slim + 4 * 2 * RANK * WIDTH
    assert kept(lambda: as_written(found)) > 3 * full


def test_without_gradients_it_is_the_formula() -> None:
    found = given((True, True, True), 3, torch.float32)
    with torch.no_grad():
        out = film(found.y, found.weights, found.gain, found.shift)
        assert torch.equal(out, modulate(found.y, found.weights, found.gain, found.shift))
    assert out.grad_fn is None


def test_a_token_without_a_skill_keeps_its_bits() -> None:
    found = given((True, True, True), 3, torch.bfloat16)
    with torch.no_grad():
        found.weights[1] = 0
        assert torch.equal(as_layers_do(*found)[1], found.y[1])
