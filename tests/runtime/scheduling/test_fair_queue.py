"""Who is next: priorities, then users, then skills of a user, then the order of arrival."""

from __future__ import annotations

import gc
from typing import Any

import pytest

from lime_edge.runtime import Runtime
from lime_edge.runtime.scheduling.fair_queue import _REMEMBERED, FairQueue
from lime_edge.runtime.scheduling.job import Job
from tests.runtime.scheduling.jobs import job
from tests.support.runtime_models import exported, runtime


@pytest.fixture(scope="module")
def made() -> Runtime:
    return runtime(exported(), "legal", "brief")


def of(made: Runtime, user: str | None, skill: Any = None, priority: int = 0) -> Job:
    one = job(made, "Hello", skill)
    one.user, one.priority = user, priority
    return one


def order(queue: FairQueue, tokens: int = 10) -> list[Job]:
    """The jobs as they come if each is served so many tokens."""
    found = []
    while jobs := queue.jobs():
        for one in jobs:
            if not one.welcomed:
                queue.welcome(one, jobs)
        first = min(jobs, key=queue.rank)
        queue.remove(first)
        queue.serve(first, tokens)
        found.append(first)
    return found


def fill(queue: FairQueue, jobs: list[Job]) -> list[Job]:
    for one in jobs:
        queue.add(one)
    return jobs


def test_users_take_turns(made: Runtime) -> None:
    queue = FairQueue()
    jobs = fill(queue, [of(made, "many") for _ in range(4)] + [of(made, "few"), of(made, None)])
    assert [one.user for one in order(queue)] == ["many", "few", None, "many", "many", "many"]
    assert len(queue) == 0
    assert len(jobs) == 6


def test_skills_of_a_user_take_turns(made: Runtime) -> None:
    queue = FairQueue()
    jobs = fill(queue, [of(made, "a", skill) for skill in ("legal", "legal", "legal", "brief")])
    assert [one.name for one in order(queue)] == ["legal", "brief", "legal", "legal"]
    assert jobs[0].user == "a"


def test_a_users_share_does_not_grow_with_its_skills(made: Runtime) -> None:
    queue = FairQueue()
    jobs = fill(queue, [of(made, "a", skill) for skill in ("legal", "brief", None)] + [of(made, "b") for _ in range(3)])
    assert [one.user for one in order(queue)] == ["a", "b", "a", "b", "a", "b"]
    assert jobs[0].user == "a"


def test_priorities_come_first(made: Runtime) -> None:
    queue = FairQueue()
    jobs = fill(queue, [of(made, "a"), of(made, "a", priority=-1), of(made, "b", priority=2)])
    queue.serve(jobs[2], 10**6)
    assert order(queue) == [jobs[2], jobs[0], jobs[1]]


def test_who_comes_back_has_saved_up_nothing(made: Runtime) -> None:
    queue = FairQueue()
    (served,) = fill(queue, [of(made, "old")])
    queue.welcome(served, [])
    queue.serve(served, 1000)
    jobs = fill(queue, [of(made, "new") for _ in range(3)] + [of(made, "old")])
    assert [one.user for one in order(queue, 10)] == ["new", "old", "new", "old", "new"]
    assert jobs[0].user == "new"


def test_forgotten_jobs_are_dropped(made: Runtime) -> None:
    queue = FairQueue()
    jobs = fill(queue, [of(made, "a"), of(made, "b")])
    del jobs[0]
    gc.collect()
    assert queue.jobs() == jobs
    assert len(queue) == 1


def test_users_of_long_ago_are_forgotten(made: Runtime) -> None:
    queue, one = FairQueue(), of(made, "x")
    for number in range(2 * _REMEMBERED):
        one.user, one.accounts = f"user {number}", None
        queue.welcome(one, [])
        queue.serve(one, number + 1)
    assert len(queue._served) <= 2 * _REMEMBERED + 2
    assert one.user == f"user {2 * _REMEMBERED - 1}"
    assert queue.rank(one)[1] == 2 * _REMEMBERED
