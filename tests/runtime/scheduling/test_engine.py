"""The step engine: whatever joins, leaves, is cancelled or replaced, each answer is that of the same request alone."""

from __future__ import annotations

import gc
import random
from typing import Any

import pytest

from lime_edge.errors import ModelError
from lime_edge.runtime import Runtime
from lime_edge.runtime.decoding import kv_cache
from lime_edge.runtime.model import io_binding, lifetime
from lime_edge.runtime.scheduling.engine import Engine
from lime_edge.runtime.scheduling.job import Job
from tests.runtime.scheduling.jobs import job
from tests.support.runtime_models import exported, runtime, skill

STEMS = ["Hello", "a much longer question: é中😀 what is the answer?", "no", "The lime is a green fruit. " * 4]
SPECS: list[Any] = [None, "legal", "brief", {"legal": 0.5, "brief": 0.5}, {"brief": 0.25}]
SETTINGS: list[dict[str, Any]] = [
    {},
    {"temperature": 1.1, "seed": 5},
    {"repetition_penalty": 1.4},
    {"stop": ["e"]},
    {"speculate": False},
    {"answers": ["the answer is yes", "the answer is no", "other"]},
]
ROUNDS, JOINS = 6, 24


class Alone:
    """Answers of requests that nobody disturbs; each is computed once, by a runtime of its own."""

    def __init__(self, window: int) -> None:
        self._window = window
        self._made: dict[int, Runtime] = {}
        self._answers: dict[str, tuple[int, ...]] = {}

    def answer(self, seed: int, prompt: str, spec: Any, settings: dict[str, Any]) -> tuple[int, ...]:
        key = repr((seed, prompt, spec, settings))
        if key not in self._answers:
            if seed not in self._made:
                made = self._made[seed] = Runtime.load(exported(self._window), threads=1, prefix_cache=0)
                for name in ("legal", "brief"):
                    made.load_skill(skill(exported(self._window), name, seed))
            self._answers[key] = self._made[seed].generate(prompt, spec, **settings).token_ids
        return self._answers[key]


@pytest.mark.parametrize("window", [1, 3])
@pytest.mark.parametrize("prefix_cache", [0, 2**28])
def test_random_joins_leaves_cancels_and_updates(window: int, prefix_cache: int) -> None:
    alone, choose = Alone(window), random.Random(window)
    made = Runtime.load(exported(window), threads=1, prefix_cache=prefix_cache)
    files = {(name, seed): skill(exported(window), name, seed) for name in ("legal", "brief") for seed in (0, 1)}
    for name in ("legal", "brief"):
        made.load_skill(files[name, 0])
    engine, seed, checked = made.scheduler._engine, 0, 0
    for _ in range(ROUNDS):
        jobs: list[tuple[Job, tuple[Any, ...]]] = []
        while len(jobs) < JOINS or any(not one.done for one, _ in jobs):
            if len(jobs) < JOINS and choose.random() < 0.3:
                prompt, spec = choose.choice(STEMS) + choose.choice(["", " Why?"]), choose.choice(SPECS)
                settings = {"max_new_tokens": choose.randrange(1, 24), **choose.choice(SETTINGS)}
                one = job(made, prompt, spec, **settings)
                one.user = choose.choice([None, "a", "b"])
                made.scheduler.submit(one)
                jobs.append((one, (seed, prompt, spec, settings)))
            if jobs and choose.random() < 0.02:
                choose.choice(jobs)[0].control.cancel()
            if choose.random() < 0.02:
                seed = 1 - seed
                for name in ("legal", "brief"):
                    made.load_skill(files[name, seed], replace=True)
            engine.advance()
        for one, request in jobs:
            wanted = alone.answer(*request)
            assert one.error is None
            found = tuple(one.answer.ids)
            assert found == (wanted[: len(found)] if one.answer.reason == "cancelled" else wanted), request
            checked += one.answer.reason != "cancelled"
        assert engine.rows.count == 0
        assert engine.rows.cache is None
        assert made._bank.in_use == 3
    assert checked > ROUNDS * JOINS // 2


def test_a_round_runs_the_model_once_for_all_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    made, runs = runtime(exported(), "legal", "brief"), list[int]()
    run_bound = lifetime.run_bound

    def counted(*arguments: Any) -> None:
        runs.append(1)
        run_bound(*arguments)

    monkeypatch.setattr(io_binding, "run_bound", counted)
    made._text.eos_ids = frozenset()
    jobs = [job(made, "Hello", spec, max_new_tokens=8, speculate=False) for spec in (None, "legal", "brief", None)]
    for one in jobs:
        made.scheduler.submit(one)
    while any(not one.done for one in jobs):
        assert made.scheduler._engine.advance()
    assert len(runs) == len(jobs) + 7  # prompts, then the tokens of all but the first


def test_a_long_prompt_does_not_stop_a_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two steps of a stream at most one piece is read, and most steps follow each other directly."""
    made = runtime(exported())
    made._text.eos_ids = frozenset()
    monkeypatch.setattr("lime_edge.runtime.scheduling.reading_plan._PIECE", 8)
    monkeypatch.setattr("lime_edge.runtime.scheduling.reading_plan._SHORT", 16)
    stream, long = job(made, "Hello", streamed=True, max_new_tokens=200), job(made, "x" * 150, max_new_tokens=2)
    engine = made.scheduler._engine
    made.scheduler.submit(stream)
    while not stream.answer.ids:
        engine.advance()
    made.scheduler.submit(long)
    between, steps = [0], 0
    while not long.done and not stream.done:
        known = len(stream.answer.ids)
        stream.asked()
        engine.advance()
        if len(stream.answer.ids) > known:
            between.append(0)
            steps += 1
        else:
            between[-1] += 1
    assert steps > 60
    assert max(between[:-1]) <= 2
    assert sum(map(bool, between)) < 0.1 * len(between)


def test_a_user_with_many_requests_does_not_stop_another(monkeypatch: pytest.MonkeyPatch) -> None:
    made = runtime(exported())
    made._text.eos_ids = frozenset()
    object.__setattr__(made.scheduler._settings, "rows", 2)
    many = [job(made, "Hello", max_new_tokens=10) for _ in range(30)]
    few = job(made, "no", max_new_tokens=10)
    for one in many:
        one.user = "many"
        made.scheduler.submit(one)
    for _ in range(40):
        made.scheduler._engine.advance()
    few.user = "few"
    before = sum(one.done for one in many)
    made.scheduler.submit(few)
    while not few.done:
        made.scheduler._engine.advance()
    assert sum(one.done for one in many) - before <= 4


def test_what_fails_ends_the_rows_that_ran(monkeypatch: pytest.MonkeyPatch) -> None:
    made = runtime(exported(), "legal")
    made._text.eos_ids = frozenset()
    wanted = made.generate("Hello", "legal", max_new_tokens=6).token_ids
    jobs = [job(made, "Hello", spec, max_new_tokens=6, speculate=False) for spec in (None, "legal")]
    for one in jobs:
        made.scheduler.submit(one)
    while not all(one.read for one in jobs):
        made.scheduler._engine.advance()

    def fail(*_: Any) -> None:
        raise RuntimeError("broken")

    with monkeypatch.context() as patch:
        patch.setattr(io_binding, "run_bound", fail)
        made.scheduler._engine.advance()
    assert all(isinstance(one.error, ModelError) for one in jobs)
    assert made.scheduler.stats().finished["error"] == 2
    assert made.generate("Hello", "legal", max_new_tokens=6).token_ids == wanted


def test_an_event_that_fails_ends_its_own_request() -> None:
    made = runtime(exported())
    made._text.eos_ids = frozenset()

    class Broken:
        def is_set(self) -> bool:
            raise KeyError("event")

    bad, good = job(made, cancel=Broken()), job(made, max_new_tokens=4)
    for one in (bad, good):
        made.scheduler.submit(one)
    while not good.done:
        made.scheduler._engine.advance()
    assert isinstance(bad.error, KeyError)
    assert good.error is None


def test_a_forgotten_job_leaves_its_row() -> None:
    made = runtime(exported(), "legal")
    made._text.eos_ids = frozenset()
    jobs = [job(made, "Hello", "legal", max_new_tokens=50), job(made, max_new_tokens=50)]
    for one in jobs:
        made.scheduler.submit(one)
    for _ in range(5):
        made.scheduler._engine.advance()
    assert made.scheduler.stats().running == 2
    del one, jobs[0]
    gc.collect()
    made.scheduler._engine.advance()
    assert made.scheduler.stats().running == 1
    jobs.clear()
    gc.collect()
    assert made.scheduler.stats().kv_used == 0


def test_streams_that_nobody_reads_keep_nobody_out() -> None:
    """All rows belong to streams that wait for their readers: a new request gets a row nevertheless."""
    made = runtime(exported())
    made._text.eos_ids = frozenset()
    object.__setattr__(made.scheduler._settings, "rows", 2)
    streams = [made.stream("Hello", max_new_tokens=100) for _ in range(2)]
    texts = [next(stream) for stream in streams]
    assert len(made.generate("no", max_new_tokens=30).token_ids) == 30
    wanted = made.generate("Hello", max_new_tokens=100).text
    assert [text + "".join(stream) for text, stream in zip(texts, streams, strict=True)] == [wanted] * 2


def test_without_moving_rows_requests_wait_for_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a device whose memory Python cannot copy: rows finish, but none joins."""
    made = runtime(exported(), "legal")
    made._text.eos_ids = frozenset()
    prompts = ["Hello", "no", "is it so?"]
    wanted = [made.generate(prompt, "legal", max_new_tokens=9).token_ids for prompt in prompts]

    def refuse(*_: Any) -> None:
        raise AssertionError("rows cannot be copied")

    monkeypatch.setattr(kv_cache.Cache, "_copy", refuse)
    monkeypatch.setattr(kv_cache.Cache, "remember", lambda *_: None)
    graph = made._graph
    monkeypatch.setattr(type(graph), "on_host", property(lambda _: False))
    monkeypatch.setattr(io_binding.Binding, "run", lambda self: lifetime.run_bound(graph.session, self._io))
    monkeypatch.setattr("lime_edge.runtime.model.kv_buffers.State.__init__", _host_state)
    jobs = [job(made, prompt, "legal", max_new_tokens=9) for prompt in prompts]
    engine: Engine = made.scheduler._engine
    for one in jobs[:2]:
        made.scheduler.submit(one)
    engine.advance()
    made.scheduler.submit(jobs[2])
    while not all(one.done for one in jobs[:2]):
        engine.advance()
        assert not jobs[2].begun
    while not jobs[2].done:
        engine.advance()
    assert [tuple(one.answer.ids) for one in jobs] == wanted


def _host_state(self: Any, graph: Any, rows: int, capacity: int) -> None:
    """A state in numpy's memory, although the graph says that it runs elsewhere."""
    import numpy as np

    directory = graph.directory
    self._graph, self._tail = graph, (directory.kv_heads, capacity, directory.head_size)
    self._stride = directory.kv_heads * capacity * directory.head_size * 4
    self._host = np.zeros((2 * directory.layers, rows, *self._tail), np.float32)
    self._pointers = [array.ctypes.data for array in self._host]
