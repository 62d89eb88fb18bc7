"""Callers of several threads share steps, hand over, and end alone."""

from __future__ import annotations

import gc
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest

from lime_edge.errors import ConfigError
from lime_edge.runtime import Generation, Runtime, SchedulerSettings
from lime_edge.runtime.model import io_binding, lifetime
from lime_edge.runtime.types import SkillSpec
from tests.support.runtime_models import PROMPTS, exported, runtime

SKILLS: list[Any] = ["legal", "brief", None, {"legal": 0.5, "brief": 0.5}]


@pytest.fixture
def made() -> Runtime:
    found = runtime(exported(), "legal", "brief")
    found._text.eos_ids = frozenset()
    return found


def counted(monkeypatch: pytest.MonkeyPatch, seconds: float = 0.0) -> list[int]:
    """The threads that ran the graph, one entry a run; each run takes at least so long."""
    runs: list[int] = []
    run_bound = lifetime.run_bound

    def run(*arguments: Any) -> None:
        runs.append(threading.get_ident())
        time.sleep(seconds)
        run_bound(*arguments)

    monkeypatch.setattr(io_binding, "run_bound", run)
    return runs


def test_concurrent_callers_share_steps(made: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    settings: Any = {"max_new_tokens": 40, "speculate": False}
    wanted = [made.generate(prompt, spec, **settings) for prompt, spec in zip(PROMPTS, SKILLS, strict=True)]
    runs = counted(monkeypatch, 0.002)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda at: made.generate(PROMPTS[at], SKILLS[at], **settings), range(4)))
    assert [one.token_ids for one in found] == [one.token_ids for one in wanted]
    assert len(runs) < 100  # 4 x 40 if nothing were shared
    assert made.scheduler.stats().running == 0


def test_streams_of_several_threads_share_steps(made: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = [made.generate(PROMPTS[at], SKILLS[at], max_new_tokens=40).text for at in range(4)]
    runs = counted(monkeypatch, 0.002)
    with ThreadPoolExecutor(4) as pool:
        streams = [made.stream(PROMPTS[at], SKILLS[at], max_new_tokens=40, speculate=False) for at in range(4)]
        found = list(pool.map("".join, streams))
    assert found == wanted
    assert len(runs) < 120


def test_a_list_runs_as_many_rows_together_as_the_caller_says(made: Runtime) -> None:
    seen = []
    advance = made.scheduler._engine.advance

    def watched(only: Any = None) -> bool:
        seen.append(made.scheduler.stats().running)
        return advance(only)

    made.scheduler._engine.advance = watched  # type: ignore[method-assign]
    many = made.generate(PROMPTS * 3, "legal", max_new_tokens=5, batch_size=3)
    assert max(seen) == 3
    assert [one.token_ids for one in many[:4]] == [one.token_ids for one in many[4:8]]


def test_one_call_with_an_error_leaves_others_alone(made: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    counted(monkeypatch, 0.002)
    wanted = made.generate("Hello", "legal", max_new_tokens=30).token_ids

    class Broken:
        asked = 0

        def is_set(self) -> bool:
            self.asked += 1
            if self.asked > 5:
                raise KeyError("event")
            return False

    with ThreadPoolExecutor(2) as pool:
        good = pool.submit(made.generate, "Hello", "legal", max_new_tokens=30)
        bad = pool.submit(made.generate, ["Hello", "no"], "brief", max_new_tokens=30, cancel=Broken())
        with pytest.raises(KeyError):
            bad.result(timeout=60)
        assert good.result(timeout=60).token_ids == wanted
    del bad
    gc.collect()
    assert made._bank.in_use == 3
    assert made.scheduler.stats().kv_used == 0


@pytest.mark.parametrize("kind", ["generate", "stream"])
def test_ctrl_c_ends_only_the_call_that_it_interrupts(
    made: Runtime, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """The main thread waits while another one drives, drives alone, and is interrupted in both."""
    wanted = made.generate("Hello", "legal", max_new_tokens=60, speculate=False).token_ids
    counted(monkeypatch, 0.002)
    with ThreadPoolExecutor(1) as pool:
        for delay in (0.0, 0.01, 0.03, 0.05):
            other = pool.submit(made.generate, "Hello", "legal", max_new_tokens=60, speculate=False)
            timer = threading.Timer(0.02 + delay, _interrupt)
            timer.start()
            with pytest.raises(KeyboardInterrupt):
                ask_for_ever(made, kind)
            timer.join(60)
            assert other.result(timeout=60).token_ids == wanted
            gc.collect()
            assert made.scheduler.stats().kv_used == 0
            assert made._bank.in_use == 3


def ask_for_ever(made: Runtime, kind: str) -> None:
    while True:
        if kind == "generate":
            made.generate("no", {"brief": 0.5}, max_new_tokens=100, speculate=False)
        else:
            list(made.stream("no", {"brief": 0.5}, max_new_tokens=100, speculate=False))


def _interrupt() -> None:
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)


def test_the_main_thread_does_not_run_others(made: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = counted(monkeypatch, 0.001)
    stop = threading.Event()
    server = threading.Thread(target=made.scheduler.run, args=(stop,))
    server.start()
    try:
        made.generate("Hello", "legal", max_new_tokens=30, speculate=False)
        assert set(runs) == {server.ident}
    finally:
        stop.set()
        made.scheduler.wake()
        server.join(60)
    runs.clear()
    made.generate("Hello", "legal", max_new_tokens=3)
    assert set(runs) == {threading.get_ident()}
    with pytest.raises(ConfigError, match="start a thread"):
        made.scheduler.run(stop)


def test_a_request_inside_a_step_runs_by_itself(made: Runtime) -> None:
    """An event that asks the model, as the handler of a signal might."""
    wanted, found = made.generate("no", "brief", max_new_tokens=5).token_ids, list[Any]()

    class Asking:
        def is_set(self) -> bool:
            if not found:
                found.append(made.generate("no", "brief", max_new_tokens=5).token_ids)
                with suppress(ConfigError):
                    next(made.stream("no"))
                    found.append("a stream ran inside a step")
            return False

    made.generate("Hello", "legal", max_new_tokens=5, cancel=Asking())
    assert found == [wanted]


def test_priorities_and_deadlines(made: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    counted(monkeypatch, 0.002)
    object.__setattr__(made.scheduler._settings, "rows", 1)
    ended: list[str] = []

    def ask(name: str, **settings: Any) -> str:
        found: Generation = made.generate("Hello", "legal", max_new_tokens=30, speculate=False, **settings)
        ended.append(name)
        return found.finish_reason

    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(ask, "first")
        while not made.scheduler.stats().running:
            time.sleep(0.001)
        low, high = pool.submit(ask, "low"), None
        while made.scheduler.stats().waiting < 1:
            time.sleep(0.001)
        high, late = pool.submit(ask, "high", priority=5), pool.submit(ask, "late", timeout=0.01)
        assert [one.result(timeout=60) for one in (first, low, high, late)] == ["length"] * 3 + ["timeout"]
    assert ended.index("late") < ended.index("low")
    assert ended.index("high") < ended.index("low")


def test_stats(made: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    counted(monkeypatch, 0.002)
    skills: list[SkillSpec] = ["legal", None, {"legal": 0.5, "brief": 0.5}]
    with ThreadPoolExecutor(2) as pool:
        done = pool.submit(lambda: made.generate(["Hello"] * 3, skills, batch_size=2))
        while made.scheduler.stats().running < 2:
            time.sleep(0.001)
        stats = made.scheduler.stats()
        assert stats.running_by_skill in (
            {"legal": 1, "": 1},
            {"": 1, "legal+brief": 1},
            {"legal": 1, "legal+brief": 1},
        )
        assert stats.kv_used > 0
        assert 0 < stats.kv_usage < 1
        answers = done.result(timeout=60)
    stats = made.scheduler.stats()
    assert (stats.running, stats.waiting, stats.kv_used, stats.finished) == (0, 0, 0, {"length": 3})
    assert stats.new_tokens == sum(one.timings.new_tokens for one in answers)
    assert stats.prefix_queries == sum(one.timings.prompt_tokens for one in answers)
    assert stats.prefix_hits == sum(one.timings.reused_tokens for one in answers)
    assert stats.retry_after > 0


def test_settings_are_those_of_load() -> None:
    made = Runtime.load(exported(), threads=1, scheduler=SchedulerSettings(rows=3, kv_bytes=5000))
    assert (made.scheduler.stats().rows, made.scheduler.stats().kv_bytes) == (3, 5000)
