"""A job: what it needs, how far it goes unread, and how it ends."""

from __future__ import annotations

import gc

import pytest

from lime_edge.runtime import Runtime
from lime_edge.runtime.scheduling.job import Job
from lime_edge.runtime.scheduling.waiter import Waiter
from tests.runtime.scheduling.jobs import job
from tests.support.runtime_models import exported, runtime


@pytest.fixture(scope="module")
def made() -> Runtime:
    return runtime(exported(), "legal", "brief")


def test_names_and_sizes(made: Runtime) -> None:
    base, blend = job(made, max_new_tokens=7), job(made, "Hello", {"legal": 0.5, "brief": 0.5})
    assert (base.name, blend.name) == ("", "legal+brief")
    assert base.skill != blend.skill
    assert base.positions == len(base.answer.request.tokens.ids) + 7


def test_a_stream_that_nobody_reads_stops_after_some_steps(made: Runtime) -> None:
    one, other = job(made, streamed=True), job(made)
    for _ in range(16):
        assert one.wants
        one.deliver("x")
        other.deliver("x")
    wants = one.wants
    assert not wants
    assert other.wants  # nobody reads it piece by piece
    one.reader = Waiter()
    assert one.wants
    one.reader = None
    one.asked()
    assert one.wants
    assert list(one.pieces) == ["x"] * 16
    assert not other.pieces


def test_the_end_gives_everything_back_and_wakes_the_reader(made: Runtime) -> None:
    one, ends = job(made, "Hello", {"legal": 0.25}), []
    one.on_end, one.reader = lambda: ends.append(one.done), Waiter()
    before = made._bank.in_use
    fault = ValueError("x")
    one.finish(fault)
    one.finish()
    assert ends == [True]
    assert one.reader.woken
    assert made._bank.in_use == before - 1
    assert one.answer.reason == "cancelled"
    assert one.take_error() is fault
    assert one.take_error() is None


def test_callbacks_get_text_and_tokens(made: Runtime) -> None:
    seen: list[tuple[str, list[int]]] = []
    one: Job = job(made)
    one.on_piece = lambda piece, ids: seen.append((piece, ids))
    one.answer.ids += [5, 6]
    one.deliver("a")
    one.answer.ids.append(7)
    one.deliver("")
    assert seen == [("a", [5, 6]), ("", [7])]


def test_a_forgotten_job_gives_its_row_back(made: Runtime) -> None:
    before = made._bank.in_use
    one = job(made, "Hello", {"legal": 0.125})
    made.scheduler.submit(one)
    assert made._bank.in_use == before + 1
    assert made.scheduler.stats().waiting == 1
    del one
    gc.collect()
    assert made._bank.in_use == before
    assert made.scheduler.stats().waiting == 0
