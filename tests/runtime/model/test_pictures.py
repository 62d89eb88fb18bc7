"""The store of pictures: numbers that no two share, each encoded once, features within a limit, positions."""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lime_edge.errors import ConfigError
from lime_edge.runtime.model.pictures import Picture, Pictures, checked_picture_cache
from lime_edge.runtime.vision.placement import place, positions
from tests.runtime.vision import contracts as c


def made(count: int, seed: int = 0, grid: Any = None, interval: float = 1.0) -> Picture:
    values = np.random.default_rng(seed).random((count, 3), np.float32)
    return Picture(values, (count,), "image", 77, grid, interval)


def test_numbers_belong_to_one_picture_each() -> None:
    store = Pictures()
    kept = [store.get(f"{number}", lambda n=number: made(n + 1, n)) for number in range(20)]  # type: ignore[misc]
    ids = np.concatenate([one.ids for one in kept])
    assert (ids < 0).all()
    assert len(set(ids.tolist())) == len(ids) == 210
    assert store.get("3", lambda: made(9)) is kept[3]
    assert store.encoded == 20


def test_fed_are_tokens_and_rows_of_features() -> None:
    store = Pictures()
    first, second = store.get("a", lambda: made(3, 1)), store.get("b", lambda: made(2, 2))
    ids = np.array([[5, *second.ids, 6, *first.ids[1:], 0]])
    fed = store.feed(ids)
    assert fed.ids.tolist() == [[5, 77, 77, 6, 77, 77, 0]]
    at = fed.feature_ids[0]
    assert (at >= 0).tolist() == [False, True, True, False, True, True, False]
    np.testing.assert_array_equal(fed.features[at[1:3]], second.features)
    np.testing.assert_array_equal(fed.features[at[4:6]], first.features[1:])  # a piece that begins inside of a picture
    assert len(fed.features) == 4


def test_features_are_freed_beyond_the_limit_and_numbers_stay() -> None:
    store = Pictures(limit=2 * 5 * 12)  # two pictures of 5 features
    first = store.get("a", lambda: made(5)).ids.tolist()
    store.get("b", lambda: made(5))
    store.get("a", lambda: made(5))
    store.get("c", lambda: made(5))  # b was not used for longest
    assert store.encoded == 3
    store.get("a", lambda: made(5))
    assert store.encoded == 3
    again = store.get("b", lambda: made(5))
    assert store.encoded == 4
    store.get("d", lambda: made(5))
    assert store.get("a", lambda: made(5)).ids.tolist() == first  # encoded anew, under its own numbers
    assert store.get("b", lambda: made(5)) is again


def test_a_picture_in_use_is_kept_without_a_limit() -> None:
    store = Pictures(limit=0)
    held = store.get("a", lambda: made(5))
    assert store.get("a", lambda: made(5)) is held
    assert store.encoded == 1


def test_ids_of_a_picture_that_nobody_kept() -> None:
    store = Pictures(limit=0)
    ids = store.get("a", lambda: made(5)).ids
    kept = store.get("b", lambda: made(5))
    for gone in (ids, -np.arange(1000, 1002)):
        with pytest.raises(ConfigError, match="not kept any more: show it again"):
            store.feed(gone[None])
    assert len(store.feed(kept.ids[None]).features) == 5


def test_threads_that_show_the_same_picture_encode_it_once() -> None:
    store, gate, found = Pictures(), threading.Barrier(6), []

    def encode() -> Picture:
        time.sleep(0.05)
        return made(4)

    def show() -> None:
        gate.wait()
        found.append(store.get("a", encode))

    threads = [threading.Thread(target=show) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.encoded == 1
    assert len({id(one) for one in found}) == 1
    assert len(found) == 6


def test_what_one_thread_fails_at_is_said_to_all_and_tried_again() -> None:
    store, started, failed = Pictures(), threading.Event(), []

    def fail() -> Picture:
        started.set()
        time.sleep(0.1)
        raise ConfigError("no picture")

    def show() -> None:
        try:
            store.get("a", fail)
        except ConfigError as error:
            failed.append(error.message)

    threads = [threading.Thread(target=show) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == ["no picture"] * 3
    assert store.get("a", lambda: made(2)).count == 2


@given(st.lists(st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 4), st.integers(0, 4)), max_size=5))
def test_positions_of_a_row_are_those_of_its_placement(shapes: list[tuple[int, int, int, int]]) -> None:
    """From ids alone, as they are in the cache; test_placement.py compares placements with transformers."""
    store, ids = Pictures(), [7]
    pictures = []
    for number, (times, rows, columns, texts) in enumerate(shapes):
        grid = (times, rows, columns)
        count = times * rows * columns
        pictures.append(store.get(f"{number} {grid}", lambda n=count, g=grid: made(n, 0, g, 1.7)))  # type: ignore[misc]
        ids += [0, *([7] * texts)]
    placed = place(ids, 0, pictures, c.QWEN2, lambda text: [])
    whole = placed.ids.copy()
    for number, picture in enumerate(pictures):
        whole[placed.owners == number] = picture.ids
    expected, _ = positions(placed, pictures)
    np.testing.assert_array_equal(store.positions(whole), expected)


@pytest.mark.parametrize("value", [-1, 2.5, True, "1", None, 2**50])
def test_a_limit_out_of_range(value: Any) -> None:
    with pytest.raises(ConfigError, match="picture_cache is"):
        checked_picture_cache(value)
    assert checked_picture_cache(0) == 0
