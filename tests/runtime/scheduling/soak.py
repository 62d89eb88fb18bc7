"""Many threads, many skills, cancellations and hot updates for minutes: every answer is that of the request alone.

python -m tests.runtime.scheduling.soak [MINUTES]

The answer says by its receipt which packages made it; the same request is answered by a runtime that has these
packages, shares nothing and does one thing at a time. In fp32 the tokens are equal.
"""

from __future__ import annotations

import gc
import random
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from lime_edge.errors import LimeError
from lime_edge.runtime import Runtime, Ticket
from tests.support.memory_accounts import private
from tests.support.runtime_models import exported, skill

THREADS, SKILLS = 16, 8
_STEMS = ("Hello", "a much longer question: é中😀 what is the answer?", "no", "The lime is a green fruit. " * 4)
_SETTINGS: tuple[dict[str, Any], ...] = (
    {"max_new_tokens": 24},
    {"max_new_tokens": 9, "temperature": 1.1, "seed": 5},
    {"max_new_tokens": 16, "repetition_penalty": 1.4},
    {"max_new_tokens": 24, "speculate": False},
    {"answers": ["the answer is yes", "the answer is no", "other"]},
)


@cache
def package(number: int, seed: int) -> Path:
    """One of two packages of a skill; every other skill applies to prompts, too."""
    return skill(exported(), f"skill{number}", seed, activation="always" if number % 2 else "response")


@dataclass
class Soak:
    """The runtime under load, and what it answered."""

    made: Runtime
    until: float
    seen: list[tuple[str, str | None, int, tuple[int, ...], str, tuple[str, ...]]] = field(default_factory=list)
    pages: list[int] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    def client(self, number: int) -> None:
        """Ask at random until the time is over."""
        choose = random.Random(number)
        while time.monotonic() < self.until:
            prompt, setting = choose.choice(_STEMS) + choose.choice(["", " Why?"]), choose.randrange(len(_SETTINGS))
            name = choose.choice([None, *(f"skill{at}" for at in range(SKILLS))])
            kind = choose.choice([self.generate, self.stream, self.submit, self.abandon, self.choose])
            with suppress(LimeError):  # a skill that is being replaced, too many requests
                found = kind(choose, prompt, name, dict(_SETTINGS[setting], user=f"user{number % 5}"))
                self.counts[kind.__name__] += 1
                if found is not None:
                    digests = tuple(part["digest"] for part in found.receipt["skills"])
                    self.seen.append((prompt, name, setting, found.token_ids, found.finish_reason, digests))

    def generate(self, choose: random.Random, prompt: str, name: str | None, settings: dict[str, Any]) -> Any:
        cancel = threading.Event()
        if choose.random() < 0.2:
            threading.Timer(choose.random() / 50, cancel.set).start()
        return self.made.generate(prompt, name, cancel=cancel, **settings)

    def stream(self, choose: random.Random, prompt: str, name: str | None, settings: dict[str, Any]) -> Any:
        stream = self.made.stream(prompt, name, **settings)
        for _ in stream:
            if choose.random() < 0.02:
                stream.cancel()
        return stream.generation

    def submit(self, choose: random.Random, prompt: str, name: str | None, settings: dict[str, Any]) -> Any:
        ended = threading.Event()

        def end(_: Ticket) -> None:
            ended.set()

        ticket = self.made.submit(prompt, name, on_end=end, priority=choose.randrange(3), **settings)
        ended.wait(600)
        return ticket.result()

    def abandon(self, choose: random.Random, prompt: str, name: str | None, settings: dict[str, Any]) -> Any:
        next(self.made.stream(prompt, name, **settings), None)

    def choose(self, choose: random.Random, prompt: str, name: str | None, settings: dict[str, Any]) -> Any:
        self.made.choose(prompt, ["yes", "no"], name)

    def update(self) -> None:
        """Replace skills, and look at the memory."""
        choose = random.Random(-1)
        while time.monotonic() < self.until:
            number = choose.randrange(SKILLS)
            self.made.load_skill(package(number, choose.randrange(2)), f"skill{number}", replace=True)
            self.counts["update"] += 1
            self.pages.append(private())
            time.sleep(0.05)

    def check(self) -> int:
        """Compare all answers with those of undisturbed requests; returns how many differ."""
        names = {made.digest: (number, seed) for number, seed, made in _digests()}
        alone: dict[Any, tuple[int, ...]] = {}
        runtimes: dict[int, Runtime] = {}
        wrong = 0
        for prompt, name, setting, ids, reason, digests in self.seen:
            which = [names[digest] for digest in digests]
            key = prompt, name, setting, tuple(which)
            if key not in alone:
                seed = which[0][1] if which else 0
                if seed not in runtimes:
                    runtimes[seed] = Runtime.load(exported(), threads=1, prefix_cache=0)
                    for number in range(SKILLS):
                        runtimes[seed].load_skill(package(number, seed), f"skill{number}")
                alone[key] = runtimes[seed].generate(prompt, name, **_SETTINGS[setting]).token_ids
            wanted = alone[key][: len(ids)] if reason == "cancelled" else alone[key]
            if ids != wanted:
                wrong += 1
                print("differs:", key, ids, alone[key], reason)
        return wrong


def _digests() -> list[tuple[int, int, Any]]:
    made = Runtime.load(exported(), threads=1)
    return [
        (number, seed, made.load_skill(package(number, seed), f"x{number}-{seed}"))
        for number in range(SKILLS)
        for seed in range(2)
    ]


def soak(seconds: float) -> int:
    """Run it and print what was found; returns the number of faults."""
    for number in range(SKILLS):
        for seed in range(2):
            package(number, seed)
    made = Runtime.load(exported(), threads=1, prefix_cache=2**20)
    for number in range(SKILLS):
        made.load_skill(package(number, 0), f"skill{number}")
    driving = threading.Event()
    driver = threading.Thread(target=made.scheduler.run, args=(driving,))
    driver.start()
    load = Soak(made, time.monotonic() + seconds)
    try:
        with ThreadPoolExecutor(THREADS + 1) as pool:
            running = [pool.submit(load.client, number) for number in range(THREADS)] + [pool.submit(load.update)]
            for one in running:
                one.result()
    finally:
        driving.set()
        made.scheduler.wake()
        driver.join()
    gc.collect()
    stats = made.scheduler.stats()
    lost = made._bank.in_use - 1 - SKILLS + stats.running + stats.waiting + (stats.kv_used > 0)
    third = len(load.pages) // 3
    before, after = (sum(part) / len(part) for part in (load.pages[third : 2 * third], load.pages[2 * third :]))
    wrong = load.check()
    ended = Counter(reason for *_, reason, _ in load.seen)
    print(f"{len(load.seen)} answers ({dict(ended)}), {dict(load.counts)}: {wrong} differ, {lost} rows or slots lost")
    ratio = f"{after / 2**20:.1f} in the last ({after / before:.3f})"
    print(f"own pages: {before / 2**20:.1f} MiB in the second third, {ratio}")
    return wrong + lost


if __name__ == "__main__":
    sys.exit(bool(soak(60 * float(sys.argv[1] if len(sys.argv) > 1 else 2))))
