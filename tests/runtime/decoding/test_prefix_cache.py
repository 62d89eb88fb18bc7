"""The store of positions: what it finds, what it frees, whom it keeps apart, and that copies have the same bits."""

from __future__ import annotations

import gc
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from lime_edge.errors import ConfigError
from lime_edge.runtime import Runtime
from lime_edge.runtime.decoding.kv_cache import Cache
from lime_edge.runtime.decoding.prefix_cache import Pin, Positions, PrefixCache
from lime_edge.runtime.model.session import Graph
from tests.support.runtime_models import exported, runtime, skill

Ids = npt.NDArray[np.int64]


@pytest.fixture(scope="module", params=[1, 3])
def made(request: pytest.FixtureRequest) -> Runtime:
    found = runtime(exported(request.param), "reply")
    found.load_skill(skill(exported(request.param), "always", activation="always"))
    return found


@pytest.fixture(scope="module")
def graph() -> Graph:
    return Runtime.load(exported(), threads=1)._graph


@pytest.fixture
def store(graph: Graph) -> PrefixCache:
    return PrefixCache(graph)


def tokens(seed: int, count: int) -> Ids:
    return np.random.default_rng(seed).integers(3, 300, count)


def values(start: int, stop: int, exact: int | None = None) -> Positions:
    """Positions that hold their own numbers."""
    count = stop - start
    numbers = np.broadcast_to(np.arange(start, stop, dtype=np.float32)[:, None], (4, 2, count, 16)).copy()
    return Positions(numbers, np.zeros((count, 0), np.float32), count if exact is None else max(0, exact - start))


def put(store: PrefixCache, ids: Ids, number: int = 0, pin: Pin | None = None) -> None:
    store.add(ids, np.full(len(ids), number), len(ids), values, pin)


def found(store: PrefixCache, ids: Ids, number: int = 0) -> int:
    length, parts = store.find(ids, np.full(len(ids), number), exact=False)
    if length:
        joined = np.concatenate([part.values[0, 0, :, 0] for part in parts])[:length]
        assert joined.tolist() == list(range(length))
    return length


@pytest.mark.parametrize("stored", [1, 5, 31, 32, 33, 64, 100])
def test_the_longest_common_beginning_is_found_to_the_token(store: PrefixCache, stored: int) -> None:
    ids = tokens(0, 120)
    put(store, ids[:stored])
    for length in (1, 5, 31, 32, 33, 64, 100, 120):
        assert found(store, ids[:length]) == min(length, stored)
    for changed in (0, 4, 31, 32, 60):
        other = ids.copy()
        other[changed] += 1
        assert found(store, other) == min(changed, stored)


def test_many_prompts_against_a_plain_search(store: PrefixCache) -> None:
    """Random prompts over few tokens, so that they share beginnings of every length."""
    rng = np.random.default_rng(1)
    known: list[Ids] = []
    for _ in range(150):
        stem = known[rng.integers(len(known))] if known and rng.random() < 0.7 else np.zeros(0, np.int64)
        ids = np.concatenate([stem[: rng.integers(len(stem) + 1)], rng.integers(0, 3, rng.integers(1, 80))])
        common = [int(np.cumprod(ids[: len(one)] == one[: len(ids)]).sum()) for one in known]
        assert found(store, ids) == max(common, default=0)
        put(store, ids)
        known.append(ids)


def test_a_beginning_is_stored_once(store: PrefixCache) -> None:
    ids = tokens(2, 96)
    put(store, ids[:70])
    put(store, ids)
    size = store.size
    put(store, ids[:70])
    assert store.size == size == 96 * store._position
    put(store, np.concatenate([ids[:64], tokens(3, 32)]))
    assert store.size == size + 32 * store._position


def test_the_limit_holds_and_the_newest_stay(graph: Graph) -> None:
    small = PrefixCache(graph)
    small._limit = 160 * small._position
    prompts = [tokens(seed, 64) for seed in range(5)]
    for ids in prompts[:2]:
        put(small, ids)
    assert found(small, prompts[0]) == 64  # used: prompt 1 is the oldest now
    put(small, prompts[2])
    assert small.size <= small._limit
    assert [found(small, ids) for ids in prompts[:3]] == [64, 32, 64]  # the end goes before the beginning
    put(small, tokens(9, 1000))
    assert small.size <= small._limit
    assert found(small, tokens(9, 1000)) == 160


def test_a_store_of_nothing_keeps_only_what_is_pinned(graph: Graph) -> None:
    empty, ids = PrefixCache(graph, 0), tokens(0, 70)
    put(empty, ids)
    assert empty.size == 0
    pin = empty.pin()
    put(empty, ids, pin=pin)
    put(empty, tokens(1, 70))
    assert found(empty, ids) == 70
    assert empty.size == empty.held(pin) == 70 * empty._position
    second = empty.pin()
    put(empty, ids[:40], pin=second)  # inside the first
    del pin
    gc.collect()
    assert found(empty, ids) == 70 - 6  # blocks of 32 that the second pin covers
    del second
    assert empty.size == 0


def test_skills_are_told_apart_by_content(made: Runtime, store: PrefixCache) -> None:
    """Never by name or row: a generation comes once, a blend is its weights in their order."""
    specs: list[Any] = [None, "reply", {"reply": 1.0}, {"reply": 0.5}, "always"]
    first = [next(iter(store.view(made._registry.lease([spec]).applied).numbers.values())) for spec in specs]
    again = [next(iter(store.view(made._registry.lease([spec]).applied).numbers.values())) for spec in specs]
    assert first == again
    assert first[0] == 0
    assert len(set(first)) == len(specs)
    made.load_skill(made.skills()[0].path, replace=True)
    (new,) = store.view(made._registry.lease(["reply"]).applied).numbers.values()
    assert new not in first


def test_positions_of_unloaded_skills_are_freed(made: Runtime, store: PrefixCache) -> None:
    lease = made._registry.lease(["reply"])
    view = store.view(lease.applied)
    (number,) = view.numbers.values()
    put(store, tokens(0, 40))
    put(store, tokens(0, 40), number)
    store.retain(set())
    assert store.size == 40 * store._position
    assert found(store, tokens(0, 40), number) == 0
    put(store, tokens(0, 40), number)  # a request that was running meanwhile
    assert found(store, tokens(0, 40), number) == 0


def test_exact_positions_replace_others(store: PrefixCache) -> None:
    ids, base = tokens(0, 80), np.zeros(80, np.int64)
    store.add(ids, base, 50, lambda start, stop: values(start, stop, min(50, stop)))
    assert store.find(ids, base, exact=False)[0] == 80
    assert store.find(ids, base, exact=True)[0] == 50
    put(store, ids)
    assert store.find(ids, base, exact=True)[0] == 80
    assert store.size == 80 * store._position


def test_restored_prompts_have_the_bits_of_read_ones(made: Runtime) -> None:
    """However long the part that is copied, for the base and a skill; after an answer only up to the answer."""
    ids = tokens(5, 90)
    with made._registry.lease([None, "always"]) as lease:
        for applied in lease.applied:
            skills = np.full(90, applied.skill_id)
            whole = Cache(made._graph, lease.array, 1, 100).prefill(0, ids, skills)[0].copy()
            for count in (1, 2, 31, 32, 40, 64, 88, 90):
                view = PrefixCache(made._graph).view(lease.applied)
                Cache(made._graph, lease.array, 1, 100, view).prefill(0, ids[:count], skills[:count])
                cache = Cache(made._graph, lease.array, 1, 100, view)
                logits, reused = list(cache.prefill_steps(0, ids, skills, exact=True))[-1]
                assert reused == (min(count, 88) if count > 1 else 0)  # one token alone has other bits
                np.testing.assert_array_equal(logits, whole)
                for at in range(3):
                    cache.step(ids[at : at + 1], skills[:1])
                cache.remember(0)
                longer, marks = np.concatenate([ids, ids[:10]]), np.full(100, applied.skill_id)
                assert view.find(longer, marks, False)[0] == 93
                assert view.find(longer, marks, True)[0] == 90


def test_another_skill_reuses_nothing_that_this_one_made(made: Runtime) -> None:
    made = runtime(made._graph.directory.path, "reply", "other")
    made.load_skill(skill(made._graph.directory.path, "always", activation="always"))
    tokens = made._text.tokens("Hello")
    counts = [
        made.generate("Hello", spec, max_new_tokens=1).timings.reused_tokens
        for spec in ("reply", "reply", "other", None, "always", {"always": 0.5}, "always", {"always": 0.5})
    ]
    last, base = len(tokens.ids) - 2, tokens.boundary
    assert counts == [0, last, base, min(last, base), 0, 0, last, last]


@pytest.mark.parametrize("value", [-1, True, 1.5, "1", 2**60, None])
def test_a_bad_limit_is_refused(value: Any) -> None:
    with pytest.raises(ConfigError, match="expected whole bytes from 0"):
        Runtime.load(exported(), threads=1, prefix_cache=value)
