"""What answers the requests of the benchmark: the runtime in several ways, and other engines in their own processes."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from benchmarks.engines.rival_process import Rival
from lime_edge import Runtime
from lime_edge.runtime.decoding.kv_cache import CHUNK
from lime_edge.runtime.model import io_binding
from lime_edge.runtime.types import Generation

from .data import Request
from .rival_adapters import RivalAdapters

BASE, BEFORE, PLAIN, CACHE, SKILL = "base", "before", "plain", "cache", "skill"
OURS = (BASE, BEFORE, PLAIN, CACHE, SKILL)


@dataclass(frozen=True)
class Answered:
    """What one side made of one request.

    Attributes:
        seconds: Of the whole call; of rivals without tokenizer and text.
        read: Tokens of the prompt that were not kept from earlier requests.
        written: Tokens of the answer.
        steps: Runs of the model behind the prompt.
        drafted, accepted: Drafted tokens, and those that became part of the answer.
    """

    request: Request
    seconds: float
    text: str
    read: int
    written: int
    steps: int
    drafted: int
    accepted: int


Ask = Callable[[Request, bool], Answered]  # with whether one cache serves all tasks


class Ours:
    """The runtimes and their skills.

    Args:
        model: The exported model directory.
        skills: New and earlier package of every task.
        threads: Of ONNX Runtime.
        base_tokens: Maximum number of tokens of the base's answers.
    """

    def __init__(self, model: Path, skills: Mapping[str, tuple[Path, Path]], threads: int, base_tokens: int) -> None:
        self._new = Runtime.load(model, threads=threads)
        self._plain = Runtime.load(model, threads=threads, prefix_cache=0)
        self._cache = Runtime.load(model, threads=threads)  # with a cache that only its own requests have filled
        self._base_tokens = base_tokens
        for task, (new, old) in skills.items():
            self._new.load_skill(new, task)
            self._plain.load_skill(new, task)
            self._cache.load_skill(new, task)
            self._plain.load_skill(old, f"{task} before")

    def sides(self) -> dict[str, Ask]:
        """Our sides by name."""
        return {side: self._side(side) for side in OURS}

    def prompt(self, request: Request) -> list[int]:
        """The tokens of the full prompt."""
        ids: list[int] = self._plain._text.tokens([{"role": "user", "content": request.full}]).ids.tolist()
        return ids

    def _side(self, side: str) -> Ask:
        def ask(request: Request, one_cache: bool) -> Answered:
            with counted_runs() as runs:
                began = time.perf_counter()
                found = self._generate(side, request)
                seconds = time.perf_counter() - began
            timings = found.timings
            read = timings.prompt_tokens - timings.reused_tokens
            steps = len(runs) + read // -CHUNK  # without those that read the prompt
            drafts = timings.drafted_tokens, timings.accepted_tokens
            return Answered(request, seconds, found.text, read, timings.new_tokens, steps, *drafts)

        return ask

    def _generate(self, side: str, request: Request) -> Generation:
        if side == SKILL:
            return self._new.generate(request.bare, request.task)
        if side in (PLAIN, CACHE):
            runtime = self._plain if side == PLAIN else self._cache
            return runtime.generate(request.bare, request.task, speculate=False)
        skill, most = (None, self._base_tokens) if side == BASE else (f"{request.task} before", None)
        message = [{"role": "user", "content": request.full}]
        return self._plain.generate(message, skill, speculate=False, max_new_tokens=most)


@contextlib.contextmanager
def counted_runs() -> Iterator[list[None]]:
    """A list that grows with every run of a graph."""
    runs: list[None] = []
    module: Any = io_binding  # which imports the function
    run = module.run_bound

    def counted(*arguments: Any) -> Any:
        runs.append(None)
        return run(*arguments)

    module.run_bound = counted
    try:
        yield runs
    finally:
        module.run_bound = run


@dataclass(frozen=True)
class Rivals:
    """Other engines, each with one LoRA for every task and the full prompt.

    Args:
        running: Their processes.
        ours: Makes the tokens of a prompt.
        tokenizer: The model's.
        tokens: Maximum number of tokens of an answer.
    """

    running: Sequence[Rival]
    ours: Ours
    tokenizer: Tokenizer
    tokens: int

    def sides(self) -> dict[str, Ask]:
        """A side for every variant of every rival, by its title."""
        pairs = [(rival, variant) for rival in self.running for variant in rival.variants]
        return {rival.titled(variant): self._side(rival, variant) for rival, variant in pairs}

    def _side(self, rival: Rival, variant: str) -> Ask:
        def ask(request: Request, one_cache: bool) -> Answered:
            ids = self.ours.prompt(request)
            asked = {"variant": variant, "adapter": request.task, "ids": ids, "most": self.tokens}
            found = rival.ask("answer", **asked, one_cache=one_cache)
            text = self.tokenizer.decode(found["tokens"], skip_special_tokens=True)
            counts = len(found["tokens"]), found["steps"], found["drafted"], found["accepted"]
            return Answered(request, found["seconds"], text, found["read"], *counts)

        return ask


@contextlib.contextmanager
def rivals(
    names: Sequence[str], adapters: RivalAdapters, llama_python: str | None, **settings: Any
) -> Iterator[list[Rival]]:
    """Start the processes of some rivals; they end with the block.

    Args:
        names: Some of genai and llama.
        adapters: Makes the files they load.
        llama_python: Interpreter that has llama_cpp; None: this one.
        **settings: ``threads``, ``positions`` and ``ends``.

    Raises:
        click.ClickException: One does not start.
    """
    with contextlib.ExitStack() as stack:
        running = []
        for name in names:
            python = llama_python if name == "llama" and llama_python else sys.executable
            whole = settings | adapters.settings(name)
            rival = Rival(name, python, whole, adapters.work / f"requests-{name}.log", f"requests_{name}")
            stack.callback(rival.close)
            running.append(rival)
        yield running
