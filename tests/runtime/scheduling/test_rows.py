"""Rows of the shared cache: as large as needed, moved and grown without a change, given back."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from lime_edge.errors import ConfigError
from lime_edge.runtime import Runtime
from lime_edge.runtime.decoding.loop import begin_prompt, read_piece
from lime_edge.runtime.scheduling.job import Job
from lime_edge.runtime.scheduling.rows import Rows
from lime_edge.runtime.scheduling.scheduler_settings import SchedulerSettings
from tests.runtime.scheduling.jobs import job
from tests.support.runtime_models import PROMPTS, exported, runtime


@pytest.fixture(scope="module")
def made() -> Runtime:
    return runtime(exported(), "legal", "brief")


def jobs(made: Runtime, count: int, **settings: Any) -> list[Job]:
    skills: list[Any] = ["legal", None, "brief"]
    return [job(made, PROMPTS[at % 4], skills[at % 3], **settings) for at in range(count)]


def read(rows: Rows, row: int, one: Job) -> np.ndarray[Any, Any]:
    assert rows.cache is not None
    begin_prompt(rows.cache, row, one.answer)
    logits = read_piece(rows.cache, row, one.answer, 256)
    assert logits is not None
    return logits.copy()


def test_one_job_gets_a_cache_of_its_size_and_gives_it_back(made: Runtime) -> None:
    rows, (one,) = Rows(made._graph, SchedulerSettings()), jobs(made, 1, max_new_tokens=5)
    assert rows.seat([one]) == [one]
    cache = rows.cache
    assert cache is not None
    assert (cache.rows, cache.capacity) == (1, 64)
    assert rows.size == 64 * 2 * 2 * 2 * 16 * 4  # keys and values, layers, heads, numbers, bytes
    rows.free(0)
    assert (rows.cache, rows.size, rows.count) == (None, 0, 0)


def test_a_cache_grows_and_what_is_in_it_stays(made: Runtime) -> None:
    """Joining, leaving and moving change no bit of what the rows give."""
    many = jobs(made, 5, max_new_tokens=20)
    alone = []
    for one in many:
        rows = Rows(made._graph, SchedulerSettings())
        rows.seat([one])
        read(rows, 0, one)
        assert rows.cache is not None
        skill = one.answer.request.applied.skill_id
        alone.append(rows.cache.extend(0, np.array([7, 8]), np.full(2, skill)).copy())
    rows = Rows(made._graph, SchedulerSettings())
    for row, one in enumerate(many[:3]):
        assert rows.seat([one]) == many[: row + 1]
        read(rows, row, one)
    assert rows.cache is not None
    assert rows.cache.rows == 4
    rows.free(0)
    for _ in range(9):
        rows.close_hole()
    assert rows.jobs() == [many[2], many[1]]
    assert rows.seat(many[3:]) == [many[2], many[1], *many[3:]]
    for row, seated in enumerate(rows.jobs()):
        assert seated is not None
        if seated in many[3:]:
            read(rows, row, seated)
    for row, seated in enumerate(rows.jobs()):
        assert seated is not None
        skill = seated.answer.request.applied.skill_id
        found = rows.cache.extend(row, np.array([7, 8]), np.full(2, skill))
        np.testing.assert_array_equal(found, alone[many.index(seated)])


def test_free_rows_are_used_first(made: Runtime) -> None:
    rows, many = Rows(made._graph, SchedulerSettings()), jobs(made, 6)
    rows.seat(many[:4])
    rows.free(1)
    rows.free(2)
    assert rows.jobs() == [many[0], None, None, many[3]]
    assert rows.seat([many[4]]) == [many[0], many[4], None, many[3]]
    rows.free(3)
    assert rows.count == 2


def test_room(made: Runtime) -> None:
    many = jobs(made, 4, max_new_tokens=10)
    position = 2 * 2 * 2 * 16 * 4
    few = Rows(made._graph, SchedulerSettings(rows=2))
    assert few.have_room(many[:1], many[1])
    assert not few.have_room(many[:2], many[2])
    small = Rows(made._graph, SchedulerSettings(kv_bytes=2 * 128 * position))
    assert small.have_room(many[:1], many[2])
    assert not small.have_room(many[:2], many[2])
    (large,) = jobs(made, 1, max_new_tokens=200)
    assert not small.have_room(many[:1], large)
    assert small.have_room([], large)  # alone it may take more


def test_without_memory_nothing_changes(made: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, many = Rows(made._graph, SchedulerSettings()), jobs(made, 3)
    rows.seat(many[:1])
    cache = rows.cache

    def none(size: int) -> Any:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(made._graph.pool, "take", none)
        with pytest.raises(ConfigError, match="no memory for"):
            rows.seat(many[1:])
    assert rows.cache is cache
    assert rows.jobs() == many[:1]
