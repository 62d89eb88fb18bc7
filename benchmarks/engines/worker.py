"""The worker's side of rival_process.py: serves one engine in a process of its own.

The protocol is JSON lines: a request on standard input, an answer on standard output. Times are measured here, around
the engine's own calls, so that they exclude the pipe. This module imports only the standard library, so that it runs
under any interpreter in which the engine is installed.
"""

from __future__ import annotations

import json
import os
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

_SHOWN = 64  # number of logits in an answer: enough to tell two models apart


class Engine(ABC):
    """One engine with one model, run with and without an adapter.

    Args:
        settings: Settings from the parent process: ``threads``, ``positions`` (capacity of the cache) and paths.
    """

    name: ClassVar[str]

    @abstractmethod
    def __init__(self, settings: dict[str, Any]) -> None: ...

    @abstractmethod
    def variants(self) -> dict[str, str]:
        """The variants this engine can run: name -> description with versions."""

    @abstractmethod
    def forget(self, variant: str) -> None:
        """Empty the cache."""

    @abstractmethod
    def prompt(self, variant: str, ids: Sequence[int]) -> None:
        """Run a prompt on the empty cache, as the engine's own generation does."""

    @abstractmethod
    def step(self, variant: str, token: int) -> None:
        """Run one more token: this one, or the likeliest if the engine chooses tokens itself."""

    @abstractmethod
    def back(self, variant: str, length: int) -> None:
        """Truncate the cache to its first `length` positions."""

    @abstractmethod
    def logits(self, variant: str) -> Sequence[float]:
        """Logits after the last token that was run, [V]."""

    def greedy(self, variant: str, count: int) -> list[int]:
        """Greedy continuation of the last prompt by `count` tokens."""
        tokens = [_likeliest(self.logits(variant))]
        while len(tokens) < count:
            self.step(variant, tokens[-1])
            tokens.append(_likeliest(self.logits(variant)))
        return tokens


def serve(make: Callable[[dict[str, Any]], Any], worker: Callable[[Any], Any] | None = None) -> None:
    """Answer requests until the input ends. The first line of the input holds the settings.

    Args:
        make: The engine, from the settings; it has `variants`.
        worker: Answers requests about the engine, each by its method of that name. None: those of this module.
    """
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # redirect the libraries' own output to standard error
    engine = make(json.loads(sys.stdin.readline()))
    _say(answers, {"variants": engine.variants()})
    serving = (worker or _Worker)(engine)
    for line in sys.stdin:
        request = json.loads(line)
        _say(answers, getattr(serving, request.pop("do"))(**request))


def _say(answers: Any, answer: dict[str, Any]) -> None:
    answers.write(json.dumps(answer) + "\n")
    answers.flush()


class _Worker:
    """The requests: each public method answers the request of its name."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._lengths: dict[str, int] = {}  # prompt length of each variant

    def prompt(self, variant: str, ids: Sequence[int]) -> dict[str, Any]:
        """Run a prompt on an empty cache; returns its seconds."""
        self._engine.forget(variant)
        began = time.perf_counter()
        self._engine.prompt(variant, ids)
        seconds = time.perf_counter() - began
        self._lengths[variant] = len(ids)
        return {"seconds": seconds}

    def steps(self, variant: str, token: int, count: int, uncounted: int) -> dict[str, Any]:
        """Run steps after the prompt, then truncate the cache; returns the mean seconds of the last `count`."""
        for _ in range(uncounted):
            self._engine.step(variant, token)
        began = time.perf_counter()
        for _ in range(count):
            self._engine.step(variant, token)
        seconds = (time.perf_counter() - began) / count
        self._engine.back(variant, self._lengths[variant])
        return {"seconds": seconds}

    def greedy(self, variant: str, ids: Sequence[int], count: int) -> dict[str, Any]:
        """Run a prompt; returns its greedy continuation and the first few logits after it."""
        self.prompt(variant, ids)
        shown = [float(value) for value in self._engine.logits(variant)[:_SHOWN]]
        return {"tokens": self._engine.greedy(variant, count), "logits": shown}


def _likeliest(logits: Sequence[float]) -> int:
    return max(range(len(logits)), key=logits.__getitem__)
