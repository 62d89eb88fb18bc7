"""Several requests at a time with mixed skills: throughput against one at a time, latencies, and streams beside a read.

    python -m benchmarks.speed.concurrency MODEL SKILL.lime... [--concurrent 1,4,8,16] [--requests 24] [--tokens 64] \
        [--rounds 3] [--read 1000] [--threads 2] [--json FILE]

Clients submit a request when their last one has ended; one thread drives, as in a server. Every round runs the same
requests with every number of clients, in an order that changes; each request has words of its own, so nothing but the
template is in the prefix cache. "Whole answers" are requests to the skills in turn, up to their own end, with drafts;
"long answers" are conversations with the skills in turn, in which the end of turn ends nothing, of --tokens tokens,
with and without drafts. Tokens a CPU second say on a busy machine, too, how much work sharing a step saves.
"Beside a read": streams take their tokens while a prompt of --read tokens is read; intervals before and during it.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.harness.rounds import Spread, machine, write
from lime_edge.runtime import Runtime, Ticket

from .command import numbers
from .command import threads as counted

_REQUESTS = (
    *("add this song to my workout playlist", "book a table for two at an italian place tonight"),
    *("This Agreement shall be governed by the laws of Portugal", "Either party may terminate with thirty days notice"),
    *("my flight home was cancelled, can you find me another one", "what can I cook with leeks and two eggs"),
    *("List all .jpg files in the current directory tree", "Count the lines of every log file in this folder"),
)
_WORDS = (
    "river",
    "stone",
    "house",
    "garden",
    "winter",
    "engine",
    "harbour",
    "lemon",
    "paper",
    "bridge",
    "candle",
    "tower",
)
_WHOLE, _LONG, _PLAIN = "whole answers", "long answers", "long answers without drafts"
_STEADY = 60  # steps of the streams before a prompt is read
_STREAMS = (1, 4, 8)


@dataclass
class Request:
    """One request and what it got."""

    prompt: Any
    skill: str | None
    tokens: int | None
    drafts: bool = True
    times: list[float] = field(default_factory=list)  # of steps that gave tokens, after the beginning
    given: list[int] = field(default_factory=list)  # tokens of each of them

    def run(self, runtime: Runtime) -> None:
        """Submit it and wait for its end."""
        ended, start = threading.Event(), time.perf_counter()

        def piece(_text: str, ids: Sequence[int]) -> None:
            if ids:
                self.times.append(time.perf_counter() - start)
                self.given.append(len(ids))

        ticket = runtime.submit(
            self.prompt,
            self.skill,
            max_new_tokens=self.tokens,
            speculate=self.drafts,
            on_piece=piece,
            on_end=lambda _: ended.set(),
        )
        ended.wait()
        ticket.result()


@dataclass(frozen=True)
class Load:
    """What several clients measured together; times in milliseconds."""

    clients: int
    seconds: float
    cpu_seconds: float
    tokens: int
    requests: int
    first: list[float]  # until the first token of each request
    between: list[float]  # between two steps of a request, divided by the tokens of the later one


def run_load(runtime: Runtime, requests: Sequence[Request], clients: int) -> Load:
    """Answer requests with so many clients."""
    left, lock = list(reversed(requests)), threading.Lock()

    def client() -> None:
        while True:
            with lock:
                if not left:
                    return
                request = left.pop()
            request.run(runtime)

    start, before = time.perf_counter(), time.process_time()
    running = [threading.Thread(target=client) for _ in range(clients)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    seconds, cpu = time.perf_counter() - start, time.process_time() - before
    between = [
        1e3 * (later - before) / count
        for request in requests
        for before, later, count in zip(request.times, request.times[1:], request.given[1:], strict=False)
    ]
    first = [1e3 * request.times[0] for request in requests if request.times]
    return Load(clients, seconds, cpu, sum(sum(one.given) for one in requests), len(requests), first, between)


def make_requests(
    names: Sequence[str], count: int, tokens: int | None, rng: random.Random, drafts: bool = True
) -> list[Request]:
    """Requests to skills in turn; with `tokens`, conversations of that many tokens."""
    made = []
    for at in range(count):
        text = f"{_REQUESTS[at % len(_REQUESTS)]} {' '.join(rng.choices(_WORDS, k=3))}"
        prompt = text if tokens is None else [{"role": "user", "content": f"Tell me all about this: {text}"}]
        made.append(Request(prompt, names[at % len(names)], tokens, drafts))
    return made


def measure_loads(
    runtime: Runtime,
    names: Sequence[str],
    clients: Sequence[int],
    count: int,
    tokens: int | None,
    rounds: int,
    drafts: bool = True,
) -> dict[str, Any]:
    """Rounds in which every number of clients answers the same requests; the first round is not counted."""
    loads: dict[int, list[Load]] = {number: [] for number in clients}
    for number in range(rounds + 1):
        for load in random.Random(number).sample(list(clients), len(clients)):
            requests = make_requests(names, count, tokens, random.Random(1000 * number + load), drafts)
            found = run_load(runtime, requests, load)
            if number:
                loads[load].append(found)
    alone = loads[min(clients)]
    return {str(number): _summary(found, alone) for number, found in loads.items()}


def _summary(found: Sequence[Load], alone: Sequence[Load]) -> dict[str, Any]:
    speed = [load.tokens / load.seconds for load in found]
    against = [one / (load.tokens / load.seconds) for one, load in zip(speed, alone, strict=True)]
    cpu = [load.tokens / load.cpu_seconds for load in found]
    less = [one / (load.tokens / load.cpu_seconds) for one, load in zip(cpu, alone, strict=True)]
    first, between = [[ms for load in found for ms in getattr(load, name)] for name in ("first", "between")]
    return {
        "tokens_a_second": vars(Spread.of(speed)),
        "requests_a_second": vars(Spread.of([load.requests / load.seconds for load in found])),
        "against_one_at_a_time": vars(Spread.of(against)),
        "tokens_a_cpu_second": vars(Spread.of(cpu)),
        "cpu_against_one_at_a_time": vars(Spread.of(less)),
        "tokens_an_answer": sum(load.tokens for load in found) / sum(load.requests for load in found),
        "first_token_ms": _percentiles(first),
        "between_tokens_ms": _percentiles(between),
    }


def _percentiles(values: Sequence[float]) -> dict[str, float]:
    return {f"p{at}": float(np.percentile(values, at)) for at in (50, 95, 99)} if values else {}


def measure_read(runtime: Runtime, names: Sequence[str], streams: int, read: int, rng: random.Random) -> dict[str, Any]:
    """Intervals between the tokens of streams, steady and while a prompt is read.

    Returns:
        Their percentiles, the ratio of the 95th ones, and seconds until the prompt's first token.
    """
    room = runtime.context_length - 64
    tickets: list[Ticket] = []
    times: list[list[float]] = [[] for _ in range(streams)]
    for at in range(streams):
        prompt = [{"role": "user", "content": f"Tell me all about this: {' '.join(rng.choices(_WORDS, k=5))}"}]
        note = times[at].append
        tickets.append(
            runtime.submit(
                prompt,
                names[at % len(names)],
                max_new_tokens=min(2000, room),
                speculate=False,
                on_piece=lambda _text, _ids, note=note: note(time.perf_counter()),  # type: ignore[misc]
            )
        )
    while min(map(len, times)) < _STEADY:
        time.sleep(0.01)
    begun = time.perf_counter()
    words = " ".join(rng.choices(_WORDS, k=read))
    long = Request(runtime._text.tokenizer.decode(runtime._text.tokenizer.encode(words).ids[: read - 20]), None, 1)
    long.run(runtime)
    ended = time.perf_counter()
    for ticket in tickets:
        ticket.cancel()
    steady, during = list[float](), list[float]()
    for moments in times:
        for before, later in pairwise(moments[10:]):
            if later <= begun:
                steady.append(1e3 * (later - before))
            elif before < ended:
                during.append(1e3 * (later - before))
    ratio = float(np.percentile(during, 95) / np.percentile(steady, 95)) if steady and during else float("nan")
    return {
        "steady_ms": _percentiles(steady),
        "during_ms": _percentiles(during) | {"highest": max(during, default=0.0)},
        "p95_ratio": ratio,
        "read_seconds": ended - begun,
    }


@click.command()
@click.argument("model", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("skills", type=click.Path(exists=True, dir_okay=False, path_type=Path), nargs=-1, required=True)
@click.option("--concurrent", default="1,4,8,16", show_default=True, callback=numbers, help="Numbers of clients.")
@click.option("--requests", "count", default=24, show_default=True, type=click.IntRange(1), help="Requests a round.")
@click.option("--tokens", default=64, show_default=True, type=click.IntRange(2), help="Tokens of long answers.")
@click.option("--rounds", default=3, show_default=True, type=click.IntRange(1))
@click.option(
    "--read", default=1000, show_default=True, type=click.IntRange(1), help="Tokens of the prompt that is read."
)
@click.option("--threads", default=2, show_default=True, type=click.IntRange(1))
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Also write the results to this JSON file.")
def main(
    model: Path,
    skills: tuple[Path, ...],
    concurrent: list[int],
    count: int,
    tokens: int,
    rounds: int,
    read: int,
    threads: int,
    json_path: Path | None,
) -> None:
    """Measure throughput and latency of concurrent requests."""
    document: dict[str, Any] = {
        "benchmark": "concurrency",
        "settings": {"requests": count, "tokens": tokens, "rounds": rounds, "read": read, "threads": threads},
        "machine": machine(),
    }
    whole, endless = Runtime.load(model, threads=threads), Runtime.load(model, threads=threads)
    endless._text.eos_ids = frozenset()  # answers have the same length on every side
    names = [whole.load_skill(path).name for path in skills]
    for path in skills:
        endless.load_skill(path)
    stop, drivers = threading.Event(), list[threading.Thread]()
    try:
        for made in (whole, endless):
            drivers.append(threading.Thread(target=made.scheduler.run, args=(stop,)))
            drivers[-1].start()
        document[_WHOLE] = measure_loads(whole, names, concurrent, count, None, rounds)
        document[_LONG] = measure_loads(endless, names, concurrent, count, tokens, rounds)
        document[_PLAIN] = measure_loads(endless, names, concurrent, count, tokens, rounds, drafts=False)
        rng = random.Random(0)
        document["beside a read"] = {
            str(streams): [measure_read(endless, names, streams, read, rng) for _ in range(rounds)]
            for streams in _STREAMS
            if streams <= max(concurrent)
        }
    finally:
        stop.set()
        for thread in drivers:
            thread.join()
    _show(document, counted(threads))
    write(json_path, document)


def _show(document: dict[str, Any], title: str) -> None:
    for name in ("whole answers", "long answers"):
        headers = (
            "clients",
            "tokens/s",
            "against one",
            "quartiles",
            "requests/s",
            "first token, ms (p95)",
            "between, ms",
            "against one, CPU",
        )
        made = Table(*headers, title=f"{name}, {title}; between: p50, p95, p99", title_justify="left")
        for clients, found in document[name].items():
            ratio, between = found["against_one_at_a_time"], found["between_tokens_ms"]
            made.add_row(
                clients,
                f"{found['tokens_a_second']['median']:.0f}",
                f"{ratio['median']:.2f}",
                f"{ratio['low']:.2f}..{ratio['high']:.2f}",
                f"{found['requests_a_second']['median']:.1f}",
                f"{found['first_token_ms']['p50']:.0f} ({found['first_token_ms']['p95']:.0f})",
                ", ".join(f"{value:.1f}" for value in between.values()),
                f"{found['cpu_against_one_at_a_time']['median']:.2f}",
            )
        Console().print(made)
    columns = ("streams", "steady p95, ms", "during p95", "ratio", "highest", "prompt read, s")
    made = Table(*columns, title=f"beside a read, {title}; medians of rounds", title_justify="left")
    for streams, rounds in document["beside a read"].items():

        def of(*path: str, rounds: Any = rounds) -> float:
            return float(np.median([_at(one, *path) for one in rounds]))

        made.add_row(
            streams,
            f"{of('steady_ms', 'p95'):.1f}",
            f"{of('during_ms', 'p95'):.1f}",
            f"{of('p95_ratio'):.2f}",
            f"{of('during_ms', 'highest'):.0f}",
            f"{of('read_seconds'):.2f}",
        )
    Console().print(made)


def _at(found: Any, *path: str) -> float:
    for key in path:
        found = found.get(key, float("nan")) if isinstance(found, dict) else found
    return float(found)


if __name__ == "__main__":
    main()
