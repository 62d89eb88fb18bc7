"""When prompts are read, and in which pieces."""

from __future__ import annotations

import pytest

from lime_edge.runtime import Runtime
from lime_edge.runtime.decoding.kv_cache import CHUNK
from lime_edge.runtime.scheduling.fair_queue import FairQueue
from lime_edge.runtime.scheduling.job import Job
from lime_edge.runtime.scheduling.reading_plan import _BURST, _PIECE, _SPACING, ReadingPlan
from tests.runtime.scheduling.jobs import job
from tests.support.runtime_models import exported, runtime


@pytest.fixture(scope="module")
def made() -> Runtime:
    return runtime(exported())


@pytest.fixture
def plan() -> ReadingPlan:
    return ReadingPlan(FairQueue())


def jobs(made: Runtime, count: int, streamed: bool = False) -> list[Job]:
    found = [job(made, streamed=streamed) for _ in range(count)]
    for number, one in enumerate(found):
        one.number = number
    return found


def test_alone_a_prompt_is_read_in_large_pieces(made: Runtime, plan: ReadingPlan) -> None:
    one, other = jobs(made, 2)
    assert plan.next([(other, 1000), (one, 1000)], []) == (one, CHUNK)  # the one that came first
    assert plan.next([], [one]) is None


def test_prompts_of_one_call_come_before_its_answers(made: Runtime, plan: ReadingPlan) -> None:
    one, other = jobs(made, 2, streamed=True)
    other.control = one.control
    for _ in range(50):
        assert plan.next([(other, 10_000)], [one]) == (other, CHUNK)


def test_without_watchers_some_prompts_come_before_a_step(made: Runtime, plan: ReadingPlan) -> None:
    one, other = jobs(made, 2)
    read = 0
    while (piece := plan.next([(other, 10_000 - read)], [one])) is not None:
        assert piece == (other, CHUNK)
        read += CHUNK
    assert read == _BURST
    plan.stepped()
    assert plan.next([(other, 100)], [one]) == (other, 100)


def test_while_somebody_watches_one_small_piece_is_read_between_steps(made: Runtime, plan: ReadingPlan) -> None:
    (watched,), (short, other) = jobs(made, 1, streamed=True), jobs(made, 2)
    assert plan.next([(short, _PIECE), (other, _PIECE)], [watched]) == (short, _PIECE)
    assert plan.next([(other, _PIECE)], [watched]) is None
    plan.stepped()
    assert plan.next([(other, 3)], [watched]) == (other, 3)


def test_a_long_prompt_gets_a_piece_every_so_many_steps(made: Runtime, plan: ReadingPlan) -> None:
    """Nineteen of twenty steps are as fast as without it, and short prompts pass it."""
    (watched,), (long, short) = jobs(made, 1, streamed=True), jobs(made, 2)
    read = 0
    for _ in range(10 * _SPACING):
        if plan.next([(long, 10_000)], [watched]) is not None:
            read += 1
        plan.stepped()
    assert read in (9, 10)
    assert 1 / _SPACING < 0.05
    assert plan.next([(long, 10_000), (short, 50)], [watched]) == (short, 50)
    plan.stepped()
