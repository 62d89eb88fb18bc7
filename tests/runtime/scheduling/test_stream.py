"""Streams: the pieces add up to the answer of `generate`, and an abandoned stream frees its row."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from lime_edge.errors import ConfigError, ModelError
from lime_edge.runtime import Runtime
from lime_edge.runtime.model import io_binding, lifetime
from tests.support.runtime_models import PROMPTS, exported, makers, runtime, skill


@pytest.fixture(scope="module", params=[1, 3])
def made(request: pytest.FixtureRequest) -> Runtime:
    found = runtime(exported(request.param), "reply", "other")
    found.load_skill(skill(exported(request.param), "always", activation="always"))
    return found


@pytest.mark.parametrize("name", ["reply", None])
def test_a_stream_is_what_generate_says(made: Runtime, name: str | None) -> None:
    wanted = made.generate(PROMPTS[1], name, max_new_tokens=40)
    stream = made.stream(PROMPTS[1], name, max_new_tokens=40)
    with pytest.raises(ConfigError, match="has not ended"):
        _ = stream.generation
    pieces = list(stream)
    assert "".join(pieces) == wanted.text
    assert len(pieces) > 5
    assert stream.generation.token_ids == wanted.token_ids
    assert makers(stream.generation.receipt) == makers(wanted.receipt)


def test_leaving_a_stream_early_frees_its_row() -> None:
    made = runtime(exported(), "legal", "brief")
    stream = made.stream("Hello", {"legal": 0.25}, max_new_tokens=30, speculate=False)
    next(stream)
    assert made._bank.in_use == 4
    del stream
    assert made._bank.in_use == 3
    never_read = made.stream("Hello", {"legal": 0.25})
    never_read.close()
    assert made._bank.in_use == 3
    assert list(never_read) == []


def test_streams_of_several_skills_side_by_side() -> None:
    made = runtime(exported(), "legal", "brief")
    specs: list[Any] = ["legal", "brief", None, {"legal": 0.3, "brief": 0.3}]
    wanted = [made.generate("Hello", spec, max_new_tokens=10).text for spec in specs]
    streams = [made.stream("Hello", spec, max_new_tokens=10) for spec in specs]
    found = [""] * len(specs)
    going = list(range(len(specs)))
    while going:
        for number in list(going):
            piece = next(streams[number], None)
            if piece is None:
                going.remove(number)
            else:
                found[number] += piece
    assert found == wanted


@pytest.mark.parametrize("how", ["cancel", "close"])
@pytest.mark.parametrize("when", [0, 1, 4])
def test_another_thread_stops_a_stream(how: str, when: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a thread runs the graph: in the prompt, at the first token, and later."""
    made = runtime(exported(), "legal")
    rows, run_bound = made._bank.in_use, lifetime.run_bound
    runs, running, stopped = iter(range(99)), threading.Event(), threading.Event()

    def slow(*arguments: Any) -> None:
        if next(runs) == when:
            running.set()
            assert stopped.wait(60)
        run_bound(*arguments)

    monkeypatch.setattr(io_binding, "run_bound", slow)
    stream = made.stream("Hello", {"legal": 0.25}, max_new_tokens=30, speculate=False)
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(lambda: "".join(stream))
        assert running.wait(60)
        getattr(stream, how)()
        assert made._bank.in_use == rows + 1  # the graph still reads the row
        stopped.set()
        text = reading.result(timeout=60)
    assert made._bank.in_use == rows
    assert (stream.generation.text, stream.generation.finish_reason) == (text, "cancelled")
    assert (len(stream.generation.token_ids) > 0) == (when > 0)  # the first token follows the run of the prompt
    assert next(runs) == when + 1  # no run after the one that was going on
    assert list(stream) == []


def test_an_idle_stream_is_freed_by_whoever_stops_it() -> None:
    made = runtime(exported(), "legal")
    stream = made.stream("Hello", {"legal": 0.25}, max_new_tokens=30, speculate=False)
    first = next(stream)
    worker = threading.Thread(target=stream.cancel)
    worker.start()
    worker.join(60)
    assert made._bank.in_use == 2
    assert list(stream) == []
    assert (stream.generation.text, stream.generation.finish_reason) == (first, "cancelled")
    stream.close()
    stream.cancel()
    assert made._bank.in_use == 2


def test_stopping_a_finished_stream_changes_nothing() -> None:
    made = runtime(exported(), "legal")
    stream = made.stream("Hello", "legal", max_new_tokens=3)
    text = "".join(stream)
    before = stream.generation
    stream.cancel()
    assert (stream.generation, before.text) == (before, text)
    assert before.finish_reason != "cancelled"


def test_a_stream_stops_itself_from_inside_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """As from a signal's handler: the thread that runs the graph calls close."""
    made = runtime(exported(), "legal")
    run_bound = lifetime.run_bound

    def closing(*arguments: Any) -> None:
        run_bound(*arguments)
        stream.close()

    monkeypatch.setattr(io_binding, "run_bound", closing)
    stream = made.stream("Hello", {"legal": 0.25}, max_new_tokens=30, speculate=False)
    assert list(stream) == []
    assert made._bank.in_use == 2
    assert stream.generation.finish_reason == "cancelled"


@pytest.mark.parametrize(
    ("error", "raised"), [(KeyboardInterrupt, KeyboardInterrupt), (RuntimeError, ModelError), (SystemExit, SystemExit)]
)
def test_an_error_ends_a_stream(
    error: type[BaseException], raised: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = runtime(exported(), "legal")
    stream = made.stream("Hello", {"legal": 0.25}, max_new_tokens=30, speculate=False)
    first = next(stream)

    def fail(*_: Any) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(io_binding, "run_bound", fail)
        with pytest.raises(raised):
            next(stream)
    assert made._bank.in_use == 2
    assert list(stream) == []
    assert stream.generation.text == first


def test_threads_that_read_one_stream_share_its_pieces() -> None:
    made = runtime(exported(), "legal")
    made._text.eos_ids = frozenset()
    wanted = made.generate("Hello", "legal", max_new_tokens=60).text
    stream = made.stream("Hello", "legal", max_new_tokens=60)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: list(stream), range(4)))
    assert sorted("".join("".join(pieces) for pieces in found)) == sorted(wanted)
    assert stream.generation.text == wanted
