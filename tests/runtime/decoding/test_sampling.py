"""Sampling compared with its plain definition, token by token."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lime_edge.errors import ModelError
from lime_edge.runtime.decoding.generation_options import Options
from lime_edge.runtime.decoding.sampling import Sampler, draw, likeliest, nucleus, penalised

LOGITS = np.random.default_rng(0).normal(0, 3, 40).astype(np.float32)


def plainly(logits: npt.NDArray[np.float32], options: Options) -> npt.NDArray[np.float64]:
    """The distribution [V], computed token by token: softmax, top-k, top-p, then normalised again."""
    scaled = logits.astype(np.float64) / options.temperature
    order = np.argsort(-scaled, kind="stable").tolist()
    kept = order[: options.top_k or None]
    prob = np.exp(scaled - scaled.max())
    total, nucleus, mass = sum(prob[token] for token in kept), [], 0.0
    for token in kept:
        nucleus.append(token)
        mass += prob[token] / total
        if mass >= options.top_p < 1:
            break
    result = np.zeros(len(logits))
    result[nucleus] = prob[nucleus] / prob[nucleus].sum()
    return result


@settings(deadline=None)
@given(
    st.floats(0.2, 5),
    st.integers(0, 45) | st.integers(0, 3000),
    st.floats(0.01, 1) | st.just(1.0),
    st.floats(0, 1, exclude_max=True),
    st.integers(0, 99),
    st.sampled_from([40, 1500, 20_011]),
)
def test_draw_is_the_inverse_of_the_plain_distribution(
    temperature: float, top_k: int, top_p: float, uniform: float, seed: int, vocabulary: int
) -> None:
    logits = np.random.default_rng(seed).normal(0, 3, vocabulary).astype(np.float32)
    options = Options(temperature=temperature, top_k=top_k, top_p=top_p)
    expected = plainly(logits, options)
    token = draw(logits, options, uniform)
    below = expected[:token].sum()
    assert expected[token] > 0
    assert below - 1e-9 <= uniform <= below + expected[token] + 1e-9


@settings(deadline=None)
@given(
    st.floats(5e-324, 10) | st.sampled_from([5e-324, 1e-307, 1e-45]),
    st.integers(0, 2**20),
    st.floats(1e-3, 1),
    st.floats(0.1, 10),
    st.sampled_from([np.float32, np.float16]),
    st.integers(0, 99),
)
def test_every_setting_in_its_range_draws_a_token(
    temperature: float, top_k: int, top_p: float, penalty: float, dtype: type[np.floating], seed: int
) -> None:
    logits = np.random.default_rng(seed).normal(0, 10, 1000).astype(dtype)
    logits[::7] = -np.inf
    sampler = Sampler(Options(None, temperature, top_k, top_p, penalty, seed), [1, 2])
    drawn = [sampler(logits) for _ in range(3)]
    assert all(0 <= token < 1000 and logits[token] > -np.inf for token in drawn)
    if temperature < 1e-6 and penalty == 1:
        assert set(drawn) == {int(logits.argmax())}


def test_a_temperature_next_to_0_is_greedy() -> None:
    for temperature in (5e-324, 1e-307, 1e-38):
        assert draw(LOGITS, Options(temperature=temperature), 0.999) == LOGITS.argmax()
        assert draw(LOGITS * 1e30, Options(temperature=temperature, top_k=5, top_p=0.5), 0.0) == LOGITS.argmax()


def test_frequencies() -> None:
    options = Options(temperature=1.5, top_k=5, seed=1)
    sampler = Sampler(options, [])
    counts = np.bincount([sampler(LOGITS) for _ in range(4000)], minlength=40) / 4000
    np.testing.assert_allclose(counts, plainly(LOGITS, options), atol=0.03)


def test_greedy_takes_the_first_of_equals_and_leaves_the_logits_alone() -> None:
    logits = np.array([1, 3, 3, 2], np.float32)
    assert Sampler(Options(), [])(logits) == 1
    assert Sampler(Options(repetition_penalty=2.0), [1])(logits) == 2
    with pytest.raises(ModelError):
        Sampler(Options(repetition_penalty=2.0), [0, 0])(broken := np.array([1, np.nan], np.float32))
    assert broken[0] == 1
    assert logits.tolist() == [1, 3, 3, 2]


@given(
    st.lists(st.integers(-9, 9), min_size=1, max_size=60).map(lambda values: np.array(values * 60, np.float32)),
    st.integers(1, 70),
)
def test_the_likeliest_are_the_highest_and_their_equals(logits: npt.NDArray[np.float32], count: int) -> None:
    """Many ties, in vocabularies large enough for groups."""
    found = likeliest(logits, min(count, len(logits) - 1))
    lowest = sorted(logits.tolist(), reverse=True)[min(count, len(logits) - 1) - 1]
    assert found.tolist() == [token for token, value in enumerate(logits.tolist()) if value >= lowest]


@given(
    st.lists(st.sampled_from([0.0, 1e-300, 1e-9, 0.1, 0.5, 1.0]), min_size=1, max_size=700),
    st.floats(0.01, 1, exclude_max=True),
)
def test_the_nucleus_is_the_fewest_that_make_up_the_share(values: list[float], share: float) -> None:
    weights = np.array([*values, 1.0])
    found = nucleus(weights, share)
    total, lowest = weights.sum(), weights[found].min()
    assert found.tolist() == np.flatnonzero(weights >= lowest).tolist()
    assert weights[found].sum() >= share * total * (1 - 1e-12)
    assert weights[weights > lowest].sum() < share * total * (1 + 1e-12)


def test_no_token_without_weight_is_drawn_however_the_sums_are_rounded() -> None:
    """At a low temperature nearly all weights are 0, including those at the ends of blocks and of the vocabulary."""
    logits = np.full(3000, -100, np.float32)
    logits[[700, 1023, 2400]] = 0
    last = float(np.nextafter(1, 0))
    for uniform, token in ((0, 700), (0.3, 700), (0.34, 1023), (0.66, 1023), (0.67, 2400), (last, 2400)):
        assert draw(logits, Options(temperature=0.05), uniform) == token


def test_repetition_penalty_counts_prompt_and_answer() -> None:
    assert penalised(np.array([2, -2, 0], np.float32), 2.0).tolist() == [1, -4, 0]
    logits = np.array([8, 4, 3], np.float32)
    sampler = Sampler(Options(repetition_penalty=4.0), [0, 0])
    assert [sampler(logits) for _ in range(4)] == [1, 2, 0, 0]
    assert logits.tolist() == [8, 4, 3]


def test_frequency_and_presence_penalties_count_the_answer_alone() -> None:
    logits = np.array([5, 4.9, 3], np.float32)
    often = Sampler(Options(frequency_penalty=0.5), [0, 0, 0])
    assert [often(logits) for _ in range(6)] == [0, 1, 0, 1, 0, 1]
    once = Sampler(Options(presence_penalty=2.0), [0, 0, 0])
    assert [once(logits) for _ in range(6)] == [0, 1, 0, 0, 0, 0]
    wanted = Sampler(Options(presence_penalty=-2.0, frequency_penalty=-2.0), [])
    assert {wanted(logits) for _ in range(6)} == {0}
    np.testing.assert_array_equal(logits, np.array([5, 4.9, 3], np.float32))


def test_all_penalties_are_applied_one_after_the_other() -> None:
    rng = np.random.default_rng(0)
    sampler = Sampler(Options(repetition_penalty=1.5, frequency_penalty=0.7, presence_penalty=-0.4), [3, 4])
    answer: list[int] = []
    for _ in range(50):
        logits = rng.normal(0, 2, 30).astype(np.float32)
        expected = logits.astype(np.float64)
        for token in {3, 4, *answer}:
            expected[token] = penalised(logits[token], 1.5) - 0.7 * answer.count(token) + 0.4 * (token in answer)
        answer.append(sampler(logits.copy()))
        assert answer[-1] == expected.argmax()


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
