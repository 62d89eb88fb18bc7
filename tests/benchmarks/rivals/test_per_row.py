"""Mixtures that route rows: values and gradients against their papers."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.rivals.per_row import Mocle, More
from benchmarks.rivals.scaffold import Adapted
from tests.benchmarks.support.rival_layers import (
    KINDS,
    ROWS,
    SETTINGS,
    Array,
    Defined,
    Held,
    arrays,
    check_gradients,
    check_values,
    frozen,
    inputs,
    layer,
    lora,
)
from tests.reference import softmax


def more(held: Held, x: Array, row: int) -> Array:
    chosen = int(np.argmax(held["gate"] @ held["table.weight"][int(KINDS[row])]))
    ranks = SETTINGS.rank * (chosen + 1)
    result: Array = SETTINGS.scaling * held["b"][0][:, :ranks] @ (held["a"][0][:ranks] @ x)
    return frozen(held, x) + result


def mocle(held: Held, x: Array, row: int) -> Array:
    g = softmax(held["gate"] @ held["table.weight"][int(KINDS[row])] / 0.05)
    best = int(np.argmax(g))
    return frozen(held, x) + g[best] * lora(held, x, best) + (1 - g[best]) * lora(held, x, 3)  # type: ignore[no-any-return]


DEFINED: list[tuple[type[Adapted], Defined]] = [
    (More, more),
    (Mocle, mocle),
]
NAMES = [kind.__name__ for kind, _ in DEFINED]
#: Parameters whose gradient differs from the slope by design: MoRE's choice has a straight-through gradient.
CONSTANT: dict[type[Adapted], set[str]] = {More: {"gate", "table.weight"}}


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("kind", "defined"), DEFINED, ids=NAMES)
def test_values_are_those_of_the_paper(kind: type[Adapted], defined: Defined, bias: bool) -> None:
    check_values(kind, defined, bias)


@pytest.mark.parametrize("kind", [kind for kind, _ in DEFINED], ids=NAMES)
def test_gradients_are_the_slopes(kind: type[Adapted]) -> None:
    check_gradients(kind, CONSTANT.get(kind, set()))


def test_more_chooses_straight_through() -> None:
    """The gate's gradient is that of the soft choice, at the values of the hard choice."""
    made, x = layer(More), inputs()
    made(x).sum().backward()
    found = dict(made.named_parameters())["gate"].grad
    assert found is not None
    assert found.abs().min(1).values.max() > 0
    held = arrays(made)
    felt = []
    for row in range(ROWS):
        t = held["table.weight"][int(KINDS[row])]
        prob = softmax(held["gate"] @ t)
        worth = np.zeros(3)  # value of each choice: the sum of its blocks
        for token in x[row].numpy():
            low = held["a"][0] @ token
            parts = [
                SETTINGS.scaling * (held["b"][0][:, 2 * e : 2 * e + 2] @ low[2 * e : 2 * e + 2]).sum() for e in range(3)
            ]
            worth += np.cumsum(parts)
        felt.append(np.outer(prob * (worth - prob @ worth), t))
    np.testing.assert_allclose(found.numpy(), sum(felt), rtol=1e-5)
