"""No contamination: eight threads share what they read, and every answer is that of a runtime that shares nothing.

Skills are loaded, replaced and unloaded meanwhile, so the answer says by its receipt which generation made it; that one
is compared with the answers of both packages of its name, each of which alone is right.
"""

from __future__ import annotations

import gc
import random
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from lime_edge.errors import LimeError
from lime_edge.runtime import Context, Runtime
from tests.support.runtime_models import exported, skill

THREADS, STEPS, TOKENS = 8, 40, 5
STEMS = ["The lime is a green fruit. " * 3, "The lime is sour, and it grows in warm places.", "Hello", "no"]
ENDS = ["", " Why?", " What is it, and where does it grow?", " é中"]
NAMES = {"reply": "response", "other": "response", "always": "always", "odd": "always"}
Spec = str | Mapping[str, float] | None
SPECS: list[Spec] = [None, *NAMES, {"reply": 0.5, "other": 0.5}, {"always": 0.5, "odd": 0.25}, {"always": 1.0}]
CHOICES = ["yes", "no", "perhaps"]
#: Greedy, drawn (each row from its own seed), and one of several choices.
SETTINGS: list[dict[str, Any]] = [
    {},
    {"temperature": 1.2, "seed": 1},
    {"temperature": 0.9, "top_p": 0.9, "seed": 2, "repetition_penalty": 1.1},
    {"answers": CHOICES},
]


@cache
def package(window: int, name: str, seed: int) -> Path:
    return skill(exported(window), name, seed, activation=NAMES[name])


class Fresh:
    """Answers of runtimes that keep nothing between requests; each is computed once."""

    def __init__(self, window: int) -> None:
        self._window = window
        self._made: dict[Any, Runtime] = {}
        self._answers: dict[Any, Any] = {}

    def runtime(self, seeds: tuple[tuple[str, int], ...]) -> Runtime:
        """A runtime with these packages, by name and seed."""
        if seeds not in self._made:
            first = next(iter(self._made.values()), None)
            if first is None:
                made = Runtime.load(exported(self._window), threads=1, prefix_cache=0)
            else:
                made = Runtime(first._graph, first._text, {}, prefix_cache=0)
            for name, seed in seeds:
                made.load_skill(package(self._window, name, seed))
            self._made[seeds] = made
        return self._made[seeds]

    def answer(self, prompt: Any, spec: Spec, digests: Mapping[str, str], settings: dict[str, Any] | None) -> Any:
        """The answer with the packages of these digests; without settings, the scores of `choose`."""
        names = [] if spec is None else [spec] if isinstance(spec, str) else list(spec)
        seeds = tuple((name, self.seed(name, digests[name])) for name in names)
        key = repr((prompt, spec, seeds, settings))
        if key not in self._answers:
            made = self.runtime(seeds)
            if settings is None:
                self._answers[key] = dict(made.choose(prompt, CHOICES, spec).scores)
            else:
                self._answers[key] = made.generate(prompt, spec, max_new_tokens=TOKENS, **settings).token_ids
        return self._answers[key]

    def seed(self, name: str, digest: str) -> int:
        return next(seed for seed in (0, 1) if digest_of(self._window, name, seed) == digest)


@cache
def digest_of(window: int, name: str, seed: int) -> str:
    made = Runtime.load(exported(window), threads=1)
    return made.load_skill(package(window, name, seed)).digest


class Program:
    """Eight threads on one runtime; what they got is compared afterwards."""

    def __init__(self, made: Runtime, window: int) -> None:
        self.made, self.window = made, window
        self.seen: list[tuple[Any, Spec, Any, Any, Any]] = []  # prompt, skill, receipt, settings, answer
        self.contexts: list[tuple[Context, str]] = []

    def thread(self, number: int) -> None:
        choose = random.Random(number)
        for _ in range(STEPS):
            with suppress(LimeError):  # a skill that another thread has just unloaded, a closed context
                getattr(self, choose.choice(self.STEPS_OF))(choose)

    def generate(self, choose: random.Random) -> None:
        prompts, specs = [self._prompt(choose) for _ in range(2)], choose.sample(SPECS, 2)
        settings = choose.choice(SETTINGS)
        answers = self.made.generate(prompts, specs, max_new_tokens=TOKENS, **settings)
        for prompt, spec, found in zip(prompts, specs, answers, strict=True):
            self.seen.append((prompt, spec, found.receipt, settings, found.token_ids))

    def use(self, choose: random.Random) -> None:
        """Another active skill or blend for all threads."""
        self.made.use_skill(choose.choice(SPECS))

    def active(self, choose: random.Random) -> None:
        """An answer with whatever is active; only its receipt tells what that was."""
        prompt, settings = self._prompt(choose), choose.choice(SETTINGS)
        found = self.made.generate(prompt, max_new_tokens=TOKENS, **settings)
        self.seen.append((prompt, _told(found.receipt), found.receipt, settings, found.token_ids))

    def stream(self, choose: random.Random) -> None:
        prompt, spec, settings = self._prompt(choose), choose.choice(SPECS), choose.choice(SETTINGS)
        stream = self.made.stream(prompt, spec, max_new_tokens=TOKENS, **settings)
        for _ in stream:
            if choose.random() < 0.1:
                return  # abandoned
        found = stream.generation
        self.seen.append((prompt, spec, found.receipt, settings, found.token_ids))

    def turns(self, choose: random.Random) -> None:
        """The second turn of a chat, whose history another turn has made."""
        spec, first = choose.choice(SPECS), [{"role": "user", "content": self._prompt(choose)}]
        said = self.made.generate(first, spec, max_new_tokens=TOKENS).text or "x"
        prompt = [*first, {"role": "assistant", "content": said}, {"role": "user", "content": "Why?"}]
        found = self.made.generate(prompt, spec, max_new_tokens=TOKENS)
        self.seen.append((prompt, spec, found.receipt, {}, found.token_ids))

    def choose(self, choose: random.Random) -> None:
        prompt, spec = self._prompt(choose), choose.choice(SPECS)
        found = self.made.choose(prompt, CHOICES, spec)
        self.seen.append((prompt, spec, found.receipt, None, dict(found.scores)))

    def prefill(self, choose: random.Random) -> None:
        stem = choose.choice(STEMS)
        self.contexts.append((self.made.prefill(stem, choose.choice(SPECS)), stem))

    def ask(self, choose: random.Random) -> None:
        context, stem = choose.choice([*self.contexts, (None, "")])
        question, spec = choose.choice(ENDS) or "x", choose.choice(SPECS)
        found = self.made.generate(question, spec, context=context, max_new_tokens=TOKENS)
        prompt = question if context is None else f"{stem}\n\n{question}"
        self.seen.append((prompt, spec, found.receipt, {}, found.token_ids))

    def close(self, choose: random.Random) -> None:
        if self.contexts:
            with suppress(IndexError):
                self.contexts.pop(0)[0].close()

    def replace(self, choose: random.Random) -> None:
        name = choose.choice(list(NAMES))
        self.made.load_skill(package(self.window, name, choose.randrange(2)), replace=True)

    def unload(self, choose: random.Random) -> None:
        self.made.unload_skill(choose.choice(list(NAMES)))

    def _prompt(self, choose: random.Random) -> str:
        return choose.choice(STEMS) + choose.choice(ENDS)

    STEPS_OF: tuple[str, ...] = (
        "generate",
        "generate",
        "stream",
        "stream",
        "use",
        "active",
        "active",
        "turns",
        "choose",
        "prefill",
        "ask",
        "ask",
        "close",
    )
    STEPS_OF += ("replace", "replace", "unload")


@pytest.mark.parametrize("window", [1, 3])
@pytest.mark.parametrize("limit", [2**28, 2**17], ids=["roomy", "tight"])
def test_every_answer_is_that_of_a_fresh_runtime(window: int, limit: int) -> None:
    made = Runtime.load(exported(window), threads=1, prefix_cache=limit)
    for name in NAMES:
        made.load_skill(package(window, name, 0))
    program, fresh = Program(made, window), Fresh(window)
    sys.setswitchinterval(1e-4)
    try:
        with ThreadPoolExecutor(THREADS) as pool:
            for done in [pool.submit(program.thread, number) for number in range(THREADS)]:
                done.result(timeout=300)
    finally:
        sys.setswitchinterval(0.005)
    assert len(program.seen) > THREADS * STEPS // 8  # threads decide how often a skill happens to be unloaded
    assert {repr(settings) for _, _, _, settings, _ in program.seen} == {repr(one) for one in (None, *SETTINGS)}
    for prompt, spec, told, settings, answer in program.seen:
        digests = {part["name"]: part["digest"] for part in told["skills"]}
        assert fresh.answer(prompt, spec, digests, settings) == answer, (prompt, spec, settings)
    made.use_skill(None)
    _returned(made, program, limit)


def _returned(made: Runtime, program: Program, limit: int) -> None:
    """Closing, unloading and forgetting leave no row of the bank and no positions beyond the limit."""
    for context, _ in program.contexts:
        context.close()
    assert made._prefixes.size <= limit
    for info in made.skills():
        made.unload_skill(info.name)
    gc.collect()
    assert made._bank.in_use == 1
    assert all(block.numbers == {0} for block in made._prefixes._order)


def _told(receipt: Mapping[str, Any]) -> Spec:
    """The skill or blend that a receipt names."""
    parts = {part["name"]: part["weight"] for part in receipt["skills"]}
    return next(iter(parts), None) if list(parts.values()) in ([], [1.0]) else parts
