"""The KV cache: cached, chunked, batched and copied runs equal plain full runs."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from lime_edge.errors import ConfigError
from lime_edge.runtime import Runtime
from lime_edge.runtime.decoding import kv_cache as cache_module
from lime_edge.runtime.decoding.kv_cache import Cache
from lime_edge.skills.package import read_skill
from tests.support.runtime_models import Plain, exported, runtime, skill

Ids = npt.NDArray[np.int64]
TOLERANCE = 1e-4  # fp32: single tokens use other kernels than prompts
IDS = [0, -1, -2]  # the base and two skills with several experts
ACTIVE = 7  # position from which the skill applies in these tests


def tokens(seed: int, count: int) -> Ids:
    return np.random.default_rng(seed).integers(3, 300, count)


def rows(count: int, skill: int = IDS[1]) -> Ids:
    return np.where(np.arange(count) >= ACTIVE, skill, 0)


class Setup:
    """A graph, a bank with two skills in rows 1 and 2, and plain implementations to compare with."""

    def __init__(self, window: int) -> None:
        directory = exported(window)
        self.graph = Runtime.load(directory, threads=1)._graph
        paths = [skill(directory, name) for name in ("one", "two")]
        table = self.graph.directory.contract.table
        self.bank, ids = table.bank([read_skill(path).tensors for path in paths])
        assert ids.tolist() == IDS
        self.plain = [Plain(directory), *(Plain(directory, path, "response") for path in paths)]

    def cache(self, batch: int, capacity: int = 100) -> Cache:
        return Cache(self.graph, self.bank, batch, capacity)


@pytest.fixture(scope="module", params=[1, 3])
def setup(request: pytest.FixtureRequest) -> Setup:
    return Setup(request.param)


def test_prefill_and_steps_equal_a_full_forward(setup: Setup) -> None:
    ids, cache = tokens(0, 30), setup.cache(1)
    wanted = setup.plain[1](ids.tolist(), ACTIVE)
    found = [cache.prefill(0, ids[:20], rows(20))[0].copy()]
    found += [cache.step(ids[at : at + 1], np.array([IDS[1]]))[0].copy() for at in range(20, 30)]
    np.testing.assert_allclose(np.stack(found), wanted[19:], atol=TOLERANCE)
    assert np.abs(wanted - setup.plain[0](ids.tolist())).max() > 0.1  # the skill has an effect


def test_chunks_give_the_same_bits(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = tokens(1, 80)
    whole = setup.cache(1).prefill(0, ids, rows(80))[0].copy()
    monkeypatch.setattr(cache_module, "CHUNK", 32)
    np.testing.assert_array_equal(setup.cache(1).prefill(0, ids, rows(80))[0], whole)


def test_rows_of_a_batch_equal_rows_alone(setup: Setup) -> None:
    """Different lengths and skills, one of them the base; then some rows finish."""
    lengths, skills = (5, 40, 17, 1), np.array([IDS[row] for row in (1, 2, 0, 2)])
    batch, alone = setup.cache(4), [setup.cache(1) for _ in lengths]
    for row, length in enumerate(lengths):
        ids = tokens(row, length)
        got = batch.prefill(row, ids, rows(length, skills[row]))[0].copy()
        np.testing.assert_array_equal(got, alone[row].prefill(0, ids, rows(length, skills[row]))[0])
    live = [0, 1, 2, 3]
    for step in range(6):
        if step == 3:
            batch.copy_row(1, 0)
            batch.copy_row(3, 1)
            live = [1, 3]
        if step == 5:
            batch = batch.grown(6, 150)
        ids = tokens(10 + step, 4)[live]
        logits = batch.step(ids, skills[live])
        for at, row in enumerate(live):
            wanted = alone[row].step(ids[at : at + 1], skills[row : row + 1])[0]
            np.testing.assert_allclose(logits[at], wanted, atol=TOLERANCE)


def test_a_prefix_is_copied_only_as_far_as_it_would_be_the_same(setup: Setup) -> None:
    """The same tokens with two skills share the positions before ACTIVE, bit for bit."""
    ids, cache = tokens(2, 20), setup.cache(3)
    reused = [cache.prefill(row, ids, rows(20, skill))[1] for row, skill in enumerate(IDS[at] for at in (1, 2, 1))]
    assert reused == [0, ACTIVE, 18]  # leaves two tokens: a single one uses another kernel
    again, count = cache.prefill(1, ids, rows(20, IDS[2]))
    assert count == 18
    np.testing.assert_array_equal(again, setup.cache(1).prefill(0, ids, rows(20, IDS[2]))[0])


def test_rewinding_forgets(setup: Setup) -> None:
    ids, cache = tokens(3, 24), setup.cache(1)
    cache.prefill(0, ids[:20], rows(20))
    cache.extend(0, tokens(4, 9), np.full(9, IDS[2]))
    cache.rewind(0, 20)
    found = cache.extend(0, ids[20:], np.full(4, IDS[1]))
    np.testing.assert_allclose(found, setup.plain[1](ids.tolist(), ACTIVE)[20:], atol=TOLERANCE)


def test_capacity_is_refused_with_numbers(setup: Setup) -> None:
    with pytest.raises(ConfigError, match="257 positions are needed; the context has 256"):
        setup.cache(1, 257)
    cache = setup.cache(1, 10)  # rounded up to 64
    cache.prefill(0, tokens(0, 64), np.zeros(64, np.int64))
    with pytest.raises(ConfigError, match="64 positions is full"):
        cache.step(np.array([5]), np.array([0]))


@pytest.mark.parametrize("architecture", ["qwen2", "gemma3", "mistral"])
def test_other_architectures(architecture: str) -> None:
    """Biases, other norms, sliding windows longer than the prompt: no special case is needed."""
    directory = exported(architecture=architecture)
    made = runtime(directory, "one", activation="always")
    plain: Any = Plain(directory, made.skills()[0].path)
    ids = made._text.tokens("Hello, is it the answer?").ids.tolist()
    found = made.generate("Hello, is it the answer?", "one", max_new_tokens=8)
    expected = plain.answer(ids, 0, 8)
    assert list(found.token_ids) == expected[: len(found.token_ids)]
