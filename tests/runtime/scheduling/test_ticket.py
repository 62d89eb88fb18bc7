"""Requests that nobody waits for in a thread: a server's way."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from lime_edge.errors import ConfigError, OverloadedError
from lime_edge.runtime import Runtime, SchedulerSettings, Ticket
from tests.support.runtime_models import PROMPTS, exported, runtime, skill


@contextmanager
def driven(made: Runtime) -> Iterator[None]:
    stop = threading.Event()
    thread = threading.Thread(target=made.scheduler.run, args=(stop,))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        made.scheduler.wake()
        thread.join(60)
        assert not thread.is_alive()


class Seen:
    """What the callbacks of a ticket were called with."""

    def __init__(self) -> None:
        self.text, self.ids, self.ended = "", list[int](), threading.Event()

    def piece(self, text: str, ids: list[int]) -> None:
        self.text += text
        self.ids += ids

    def end(self, ticket: Ticket) -> None:
        assert ticket.done
        self.ended.set()


def test_tickets_give_what_generate_gives() -> None:
    made = runtime(exported(), "legal", "brief")
    skills = ["legal", None, "brief", "legal"]
    wanted = made.generate(PROMPTS, skills, max_new_tokens=20)
    seen = [Seen() for _ in PROMPTS]
    with driven(made):
        tickets = [
            made.submit(prompt, name, on_piece=one.piece, on_end=one.end, max_new_tokens=20)
            for prompt, name, one in zip(PROMPTS, skills, seen, strict=True)
        ]
        assert all(one.ended.wait(60) for one in seen)
        assert made.generate(PROMPTS[0], "legal", max_new_tokens=20).text == wanted[0].text  # beside a driving thread
    for ticket, one, answer in zip(tickets, seen, wanted, strict=True):
        assert (ticket.result().text, ticket.result().token_ids) == (answer.text, answer.token_ids)
        assert (one.text, tuple(one.ids)) == (answer.text, answer.token_ids)
        assert ticket.result().receipt["skills"] == answer.receipt["skills"]
    del tickets, ticket
    assert made._bank.in_use == 3


def test_cancelling_ends_a_ticket_at_once_if_nobody_drives() -> None:
    made, seen = runtime(exported(), "legal"), Seen()
    ticket = made.submit("Hello", {"legal": 0.25}, on_end=seen.end, max_new_tokens=20)
    with pytest.raises(ConfigError, match="has not ended"):
        ticket.result()
    ticket.cancel()
    assert seen.ended.is_set()
    assert ticket.result().finish_reason == "cancelled"
    assert made._bank.in_use == 2


def test_a_callback_that_fails_ends_its_request_alone() -> None:
    made, seen, ended = runtime(exported(), "legal"), Seen(), Seen()

    def fail(text: str, ids: list[int]) -> None:
        raise KeyError(text)

    with driven(made):
        bad = made.submit("Hello", "legal", on_piece=fail, on_end=ended.end, max_new_tokens=20)
        good = made.submit("Hello", "legal", on_piece=seen.piece, on_end=seen.end, max_new_tokens=20)
        assert ended.ended.wait(60)
        assert seen.ended.wait(60)
    with pytest.raises(KeyError):
        bad.result()
    assert good.result().text == seen.text


def test_too_many_are_refused_at_once() -> None:
    made = Runtime.load(exported(), threads=1, scheduler=SchedulerSettings(rows=1, waiting=1))
    tickets = [made.submit("Hello", max_new_tokens=20) for _ in range(2)]  # one has a row as soon as somebody drives
    with pytest.raises(OverloadedError, match=r"2 requests are waiting: try again in \d+\.\d s") as caught:
        made.submit("Hello", max_new_tokens=20)
    assert caught.value.retry_after > 0
    assert made.scheduler.stats().finished == {"overloaded": 1}
    tickets.clear()
    gc.collect()
    made.submit("Hello", max_new_tokens=20).cancel()


def test_who_waits_too_long_is_told() -> None:
    made = Runtime.load(exported(), threads=1, scheduler=SchedulerSettings(rows=1, patience=0))
    seen = Seen()
    ticket = made.submit("Hello", on_end=seen.end, max_new_tokens=20)
    with driven(made):
        assert seen.ended.wait(60)
    with pytest.raises(OverloadedError, match="no row became free"):
        ticket.result()


def test_a_forgotten_ticket_is_cancelled() -> None:
    made = runtime(exported(), "legal")
    made.submit("Hello", {"legal": 0.25}, max_new_tokens=20)
    gc.collect()
    assert made.scheduler.stats().waiting == 0
    assert made._bank.in_use == 2


def test_bad_input_is_refused_at_once() -> None:
    made = runtime(exported(), "legal")
    made.load_skill(skill(exported(), "brief"))
    with pytest.raises(ConfigError, match="submit takes one prompt"):
        made.submit(["a", "b"])  # type: ignore[list-item]
    with pytest.raises(ConfigError, match="priority is 101"):
        made.submit("a", priority=101)
    with pytest.raises(ConfigError, match="user is 5"):
        made.submit("a", user=5)  # type: ignore[arg-type]
