"""Waking a thread, before it waits, while it waits, and twice."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

from lime_edge.runtime.scheduling.waiter import Waiter


def test_news_before_waiting_is_not_lost() -> None:
    waiter = Waiter()
    waiter.wake()
    waiter.wake()
    woken = waiter.woken
    assert woken
    start = time.monotonic()
    waiter.wait(60)
    assert time.monotonic() - start < 30
    assert not waiter.woken
    waiter.wait(0.001)  # nothing new


def test_another_thread_wakes_it() -> None:
    waiter = Waiter()
    assert waiter.main
    with ThreadPoolExecutor(1) as pool:
        assert not pool.submit(Waiter).result().main
        waiting = threading.Timer(0.05, waiter.wake)
        waiting.start()
        waiter.wait(60)
    waiting.join()


def test_many_threads_wake_one() -> None:
    waiter = Waiter()
    with ThreadPoolExecutor(8) as pool:
        for done in [pool.submit(waiter.wake) for _ in range(400)]:
            done.result()
    waiter.wait(60)
