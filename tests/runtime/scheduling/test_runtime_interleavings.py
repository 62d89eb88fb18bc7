"""Whatever is interrupted, and in whatever order, no row of the bank and no memory of the cache is lost."""

from __future__ import annotations

import gc
import random
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import lime_edge.runtime
from lime_edge.errors import LimeError
from lime_edge.runtime import Runtime, Stream
from tests.support.runtime_models import exported, runtime, skill

SPECS: list[Any] = ["legal", "brief", None, {"legal": 0.5, "brief": 0.5}, {"legal": 0.25}]
INTERLEAVINGS, THREADS, STEPS = 500, 3, 6
LINES = 500  # interrupted lines of the program below, evenly spread


class BrokenError(Exception):
    """Raised inside a request."""


class Breaking:
    """An event that raises, or is set, when it is asked for the nth time."""

    def __init__(self, count: int, error: type[BaseException] | None) -> None:
        self._left, self._error = count, error

    def is_set(self) -> bool:
        self._left -= 1
        if self._left < 0 and self._error is not None:
            raise self._error
        return self._left < 0


class Account:
    """Rows and memory that are in use, and the answer of a request that nobody disturbs."""

    def __init__(self, made: Runtime) -> None:
        self._made, self._out = made, 0
        take, give = made._graph.pool.take, made._graph.pool.give

        def counted_take(size: int) -> Any:
            piece = take(size)
            self._out += 1
            return piece

        def counted_give(piece: Any) -> None:
            self._out -= 1
            give(piece)

        made._graph.pool.take, made._graph.pool.give = counted_take, counted_give  # type: ignore[method-assign]
        self.start = self.now()

    def now(self) -> tuple[int, int, Any]:
        gc.collect()
        answer = self._made.generate("Hello", "legal", max_new_tokens=3).token_ids
        return self._made._bank.in_use, self._out, answer


@pytest.fixture
def made() -> Runtime:
    return runtime(exported(), "legal", "brief")


@pytest.fixture(scope="module")
def files() -> dict[str, Path]:
    return {name: skill(exported(), name) for name in ("legal", "brief", "spare")}


class Program:
    """One random program over a runtime and the streams that its threads share."""

    def __init__(self, made: Runtime, files: dict[str, Path], seed: int) -> None:
        self.made, self.files, self.seed = made, files, seed
        self.streams: list[Stream] = []

    def thread(self, number: int) -> None:
        choose = random.Random(self.seed * THREADS + number)
        for _ in range(STEPS):
            with suppress(LimeError, BrokenError, KeyboardInterrupt, IndexError, StopIteration):
                getattr(self, choose.choice(self.NAMES))(choose)

    def start(self, choose: random.Random) -> None:
        event = Breaking(choose.randrange(9), choose.choice([None, BrokenError, KeyboardInterrupt]))
        settings: Any = choose.choice([{}, {"cancel": event}, {"timeout": 0}, {"stop": ["a"]}, {"top_k": -1}])
        self.streams.append(self.made.stream("Hello", choose.choice(SPECS), max_new_tokens=4, **settings))

    def step(self, choose: random.Random) -> None:
        next(choose.choice(self.streams))

    def close(self, choose: random.Random) -> None:
        choose.choice(self.streams).close()

    def cancel(self, choose: random.Random) -> None:
        choose.choice(self.streams).cancel()

    def forget(self, choose: random.Random) -> None:
        self.streams.pop(choose.randrange(-2, 1))

    def generate(self, choose: random.Random) -> None:
        event = Breaking(choose.randrange(9), choose.choice([None, BrokenError, KeyboardInterrupt]))
        self.made.generate(["Hello", "no"], choose.sample(SPECS, 2), max_new_tokens=2, cancel=event)

    def choose(self, choose: random.Random) -> None:
        self.made.choose("Hello", ["yes", "no"], choose.choice(SPECS), cancel=Breaking(choose.randrange(6), None))

    def load(self, choose: random.Random) -> None:
        self.made.load_skill(self.files["spare"], f"spare-{choose.randrange(2)}", prove=choose.random() < 0.2)

    def replace(self, choose: random.Random) -> None:
        name = choose.choice(["legal", "brief"])
        self.made.load_skill(self.files[name], replace=True)

    def unload(self, choose: random.Random) -> None:
        self.made.unload_skill(f"spare-{choose.randrange(2)}")

    def use(self, choose: random.Random) -> None:
        self.made.use_skill(choose.choice(SPECS))

    NAMES = (
        *("start", "start", "step", "step", "step", "close", "cancel", "forget"),
        *("generate", "choose", "load", "replace", "unload", "use"),
    )


def tidy(made: Runtime) -> None:
    made.use_skill(None)
    for info in made.skills():
        if info.name not in ("legal", "brief"):
            made.unload_skill(info.name)


def test_no_interleaving_loses_a_row(made: Runtime, files: dict[str, Path]) -> None:
    account = Account(made)
    sys.setswitchinterval(1e-4)
    try:
        with ThreadPoolExecutor(THREADS) as pool:
            for seed in range(INTERLEAVINGS):
                program = Program(made, files, seed)
                for done in [pool.submit(program.thread, number) for number in range(THREADS)]:
                    done.result(timeout=120)
                del program
                if seed % 10 == 9:
                    tidy(made)
                    assert account.now() == account.start, seed
    finally:
        sys.setswitchinterval(0.005)
    assert account.now() == account.start


# -- Ctrl-C between any two lines --------------------------------------------------------------------

HOME = str(Path(lime_edge.runtime.__file__).resolve().parent)


def script(made: Runtime, files: dict[str, Path]) -> None:
    """Every kind of request and change, once."""
    with suppress(LimeError):
        made.unload_skill("spare")
    made.load_skill(files["spare"])
    made.use_skill({"legal": 0.5, "brief": 0.5})
    stream = made.stream("Hello", {"legal": 0.25}, max_new_tokens=3)
    next(stream, None)
    made.load_skill(files["legal"], replace=True)
    stream.close()
    made.generate("Hello", ["legal", None], max_new_tokens=2)
    made.choose("Hello", ["yes", "no"])
    made.use_skill(None)
    made.unload_skill("spare")


def lines(limit: int) -> tuple[Callable[..., Any], list[int]]:
    """A tracer that counts the lines that run in the runtime, and raises KeyboardInterrupt at line `limit`."""
    count = [0]

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        if not frame.f_code.co_filename.startswith(HOME):
            return None
        if event == "line":
            count[0] += 1
            if count[0] == limit:
                raise KeyboardInterrupt
        return trace

    return trace, count


def traced(limit: int, program: Callable[[], None]) -> int:
    """Run a program that is interrupted at a line; returns the number of lines that ran."""
    trace, count = lines(limit)
    before = sys.gettrace()
    sys.settrace(trace)
    try:
        program()
    finally:
        sys.settrace(before)
    return count[0]


def spread(total: int) -> Iterator[int]:
    return (1 + number * total // LINES for number in range(LINES))


def test_no_interrupted_line_loses_a_row(made: Runtime, files: dict[str, Path]) -> None:
    account = Account(made)
    total = traced(0, lambda: script(made, files))
    assert account.now() == account.start
    for limit in spread(total):
        with suppress(KeyboardInterrupt):
            traced(limit, lambda: script(made, files))
        tidy(made)
        assert made._bank.in_use == account.start[0], f"line {limit} of {total}"
    assert account.now() == account.start
