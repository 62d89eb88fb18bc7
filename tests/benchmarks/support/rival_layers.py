"""Small layers of the rivals in float64, pieces of their definitions in numpy, and central differences."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from benchmarks.rivals.per_row import Embedded, table
from benchmarks.rivals.per_token import MoeDora
from benchmarks.rivals.scaffold import Adapted, Call, Settings

Array = npt.NDArray[Any]
Held = Mapping[str, Array]  # parameters by name
Defined = Callable[[Held, Array, int], Array]  # parameters, one token [D] and its row -> output [H]

ROWS, TOKENS, D, H = 2, 3, 5, 6
SETTINGS = Settings(experts=3, rank=2, scaling=1.5, top_k=2, tasks=4, clusters=4)
KINDS = torch.tensor([3, 1])  # task or cluster of each row


def layer(kind: type[Adapted], bias: bool = True) -> Adapted:
    """A layer in float64; all parameters are random, so that the mixture is as large as the frozen output."""
    torch.manual_seed(3)
    call = Call(task=KINDS, cluster=KINDS)
    base = nn.Linear(D, H, bias=bias)
    made = kind(base, SETTINGS, call, table(4)) if issubclass(kind, Embedded) else kind(base, SETTINGS, call)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.copy_(torch.randn(parameter.shape))
    if isinstance(made, MoeDora):
        made.squares = base.weight.detach().square().sum(1)
    return made.double().eval()


def arrays(module: nn.Module) -> dict[str, Array]:
    """A module's parameters as numpy arrays, by name."""
    return {name: p.detach().numpy() for name, p in module.named_parameters()}


def top(prob: Array, count: int) -> Array:
    """The `count` largest probabilities, renormalised; 0 elsewhere."""
    kept = np.where(prob >= np.sort(prob)[-count], prob, 0)
    result: Array = kept / kept.sum()
    return result


def lora(held: Held, x: Array, expert: int) -> Array:
    """Output s B_e A_e x of one expert for one token."""
    result: Array = SETTINGS.scaling * held["b"][expert] @ (held["a"][expert] @ x)
    return result


def frozen(held: Held, x: Array) -> Array:
    """Output of the frozen module for one token."""
    result: Array = held["base.weight"] @ x + held.get("base.bias", 0)
    return result


def inputs() -> Tensor:
    """Random inputs, [B, S, D]."""
    return torch.randn(ROWS, TOKENS, D, dtype=torch.float64, generator=torch.Generator().manual_seed(8))


def slopes(made: nn.Module, x: Tensor, parameter: Tensor, step: float = 1e-3) -> Array:
    """Central differences of a weighted sum of the outputs by one parameter; also computes the gradients.

    The step is coarse because routing is float32.
    """
    weights = torch.randn(made(x).shape, dtype=x.dtype, generator=torch.Generator().manual_seed(4))
    found = np.zeros(parameter.numel())
    flat = parameter.detach().view(-1)
    with torch.no_grad():
        for i in range(len(flat)):
            kept = float(flat[i])
            ends = []
            for there in (kept + step, kept - step):
                flat[i] = there
                ends.append(float((made(x) * weights).sum()))
            flat[i] = kept
            found[i] = (ends[0] - ends[1]) / (2 * step)
    (made(x) * weights).sum().backward()
    return found.reshape(parameter.shape)


def check_values(kind: type[Adapted], defined: Defined, bias: bool) -> None:
    """Compare a layer's outputs with the definition, token by token."""
    made, x = layer(kind, bias), inputs()
    held = arrays(made)
    wanted = np.stack([[defined(held, token, row) for token in x[row].numpy()] for row in range(ROWS)])
    np.testing.assert_allclose(made(x).detach().numpy(), wanted, rtol=1e-6, atol=1e-6)  # probabilities are float32


def check_gradients(kind: type[Adapted], constant: Set[str] = frozenset()) -> None:
    """Compare gradients with central differences, except of parameters that are constants by design."""
    names = [name for name, p in layer(kind).named_parameters() if "base" not in name and p.requires_grad]
    for name in set(names) - constant:
        made = layer(kind)
        parameter = dict(made.named_parameters())[name]
        wanted = slopes(made, inputs(), parameter)
        assert np.abs(wanted).max() > 1e-3, name
        assert parameter.grad is not None
        np.testing.assert_allclose(parameter.grad.numpy(), wanted, rtol=2e-3, atol=2e-3 * np.abs(wanted).max())
