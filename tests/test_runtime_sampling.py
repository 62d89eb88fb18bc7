"""Sampling against its plain definition, and settings that cannot be."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lime_edge.errors import ConfigError, ModelError
from lime_edge.runtime.options import Options
from lime_edge.runtime.sampling import Sampler, draw, penalised

LOGITS = np.random.default_rng(0).normal(0, 3, 40).astype(np.float32)


def plainly(logits: npt.NDArray[np.float32], options: Options) -> npt.NDArray[np.float64]:
    """The distribution, [V], token by token: softmax, the k largest, the p most probable, softmax again."""
    scaled = logits.astype(np.float64) / options.temperature
    order = sorted(range(len(logits)), key=lambda token: -scaled[token])
    kept = order[: options.top_k or None]
    prob = np.exp(scaled - scaled.max())
    total, nucleus, mass = sum(prob[token] for token in kept), [], 0.0
    for token in kept:
        nucleus.append(token)
        mass += prob[token] / total
        if mass >= options.top_p:
            break
    result = np.zeros(len(logits))
    result[nucleus] = prob[nucleus] / prob[nucleus].sum()
    return result


@given(st.floats(0.2, 5), st.integers(0, 45), st.floats(0.01, 1), st.floats(0, 1, exclude_max=True), st.integers(0, 99))
def test_draw_is_the_inverse_of_the_plain_distribution(
    temperature: float, top_k: int, top_p: float, uniform: float, seed: int
) -> None:
    logits = np.random.default_rng(seed).normal(0, 3, 40).astype(np.float32)
    options = Options(temperature=temperature, top_k=top_k, top_p=top_p)
    expected = plainly(logits, options)
    token = draw(logits, options, uniform)
    below = expected[:token].sum()
    assert expected[token] > 0
    assert below - 1e-9 <= uniform <= below + expected[token] + 1e-9


def test_frequencies() -> None:
    options = Options(temperature=1.5, top_k=5, seed=1)
    sampler = Sampler(options, [])
    counts = np.bincount([sampler(LOGITS) for _ in range(4000)], minlength=40) / 4000
    np.testing.assert_allclose(counts, plainly(LOGITS, options), atol=0.03)


def test_greedy_takes_the_first_of_equals_and_leaves_the_logits_alone() -> None:
    logits = np.array([1, 3, 3, 2], np.float32)
    assert Sampler(Options(), [])(logits) == 1
    assert Sampler(Options(repetition_penalty=2.0), [1])(logits) == 2
    assert logits.tolist() == [1, 3, 3, 2]


def test_repetition_penalty_counts_prompt_and_answer() -> None:
    changed = penalised(np.array([2, -2, 4, 0], np.float32), np.array([0, 1, 3]), 2.0)
    assert changed.tolist() == [1, -4, 4, 0]
    sampler = Sampler(Options(repetition_penalty=4.0), [0])
    assert [sampler(np.array([8, 4, 3], np.float32)) for _ in range(3)] == [1, 2, 0]


def test_seeds() -> None:
    def drawn(seed: int | None) -> list[int]:
        sampler = Sampler(Options(temperature=3.0, seed=seed), [])
        return [sampler(LOGITS) for _ in range(20)]

    assert drawn(7) == drawn(7) != drawn(8)
    assert drawn(None) != drawn(None)


def test_logits_that_are_not_numbers_are_an_error() -> None:
    for bad in (np.nan, np.inf):
        with pytest.raises(ModelError, match="not finite"):
            Sampler(Options(), [])(np.array([0, bad, 1], np.float32))


def test_every_fault_of_the_settings_at_once() -> None:
    call: dict[str, Any] = {
        "max_new_tokens": 0,
        "temperature": -1,
        "top_k": 1.5,
        "top_p": float("nan"),
        "repetition_penalty": "high",
        "seed": True,
        "stop": ["", "x"],
        "beams": 4,
    }
    with pytest.raises(ConfigError) as caught:
        Options.settle(call)
    assert len(caught.value.faults) == len(call)
    assert "temperature is -1; expected a number from 0 to 10" in caught.value.faults
    assert any(fault.startswith("unknown setting 'beams'; known are max_new_tokens") for fault in caught.value.faults)


def test_the_call_wins_over_the_skill_and_the_skill_over_the_default() -> None:
    skill = {"temperature": 0.5, "top_k": 3, "stop": ("END",)}
    assert Options.settle({}, skill) == Options(temperature=0.5, top_k=3, stop=("END",))
    assert Options.settle({"temperature": 0, "stop": []}, skill) == Options(temperature=0, top_k=3)
    assert Options.settle({"stop": "now", "temperature": None}).stop == ("now",)
