"""Mixed requests of several skills from 1 to 16 clients, against a server that answers one request at a time.

    python -m benchmarks.serving.throughput MODEL --data ../shared/data [--clients 1,4,8,16] [--json FILE]

Both servers run all the time, each asked while the other is idle; rounds take turns.
"""

from __future__ import annotations

import random
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from benchmarks.harness.rounds import machine
from benchmarks.requests.data import requests_of
from lime_edge.reports.tables import Table, report

from .load import Streamed, answered, served

SKILLS = {
    "json": "request_to_json",
    "legal": "legal_clause_type",
    "router": "assistant_routing",
    "shell": "shell_command",
}  # the data set of each
Requests = list[tuple[str, dict[str, Any]]]


def mixed(data: Path, count: int, tokens: int) -> Requests:
    """Test requests of all skills in random order, as a client of the API sends them."""
    found: Requests = []
    for skill, task in SKILLS.items():
        for request in requests_of(skill, data / "skills" / task / "test.jsonl", count // len(SKILLS)):
            messages = [{"role": "user", "content": request.bare}]
            found.append(("/v1/chat/completions", {"model": skill, "messages": messages, "max_tokens": tokens}))
    random.Random(0).shuffle(found)
    return found


def streams(count: int, tokens: int) -> Requests:
    """Free text with every skill: long answers, in which decoding is most of the work."""
    draw = random.Random(1)
    prompts = [f"Chapter {draw.randrange(10**6)}. It was a long way to the lighthouse, and" for _ in range(count)]
    return [
        ("/v1/completions", {"model": list(SKILLS)[at % len(SKILLS)], "prompt": prompt, "max_tokens": tokens})
        for at, prompt in enumerate(prompts)
    ]


def percentiles(values: Sequence[float]) -> dict[str, float]:
    """p50, p95 and p99 in milliseconds."""
    ordered = sorted(values) or [0.0]
    return {f"p{share}": 1e3 * ordered[min(len(ordered) - 1, len(ordered) * share // 100)] for share in (50, 95, 99)}


def figures(answers: Sequence[Streamed], seconds: float) -> dict[str, Any]:
    """What one run measured."""
    return {
        "requests_per_second": len(answers) / seconds,
        "tokens_per_second": sum(answer.tokens for answer in answers) / seconds,
        "first_ms": percentiles([answer.first for answer in answers]),
        "between_ms": percentiles([gap for answer in answers for gap in answer.gaps]),
    }


@click.command()
@click.argument("model", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--data", type=click.Path(exists=True, file_okay=False, path_type=Path), required=True)
@click.option("--clients", default="1,4,8,16", show_default=True)
@click.option("--requests", "count", default=96, show_default=True, type=click.IntRange(8))
@click.option("--rounds", default=3, show_default=True, type=click.IntRange(1))
@click.option("--tokens", default=64, show_default=True, type=click.IntRange(2))
@click.option("--json", "target", metavar="FILE", help="Also write the results to this JSON file.")
def main(model: Path, data: Path, clients: str, count: int, rounds: int, tokens: int, target: str | None) -> None:
    """Measure requests of the shipped skills, and long free texts."""
    loads = {"requests": mixed(data, count, tokens), "free text": streams(count // 3, 2 * tokens)}
    results: list[dict[str, Any]] = []
    with served(model, "--rows", "16") as together, served(model, "--rows", "1") as alone:
        for name, requests in loads.items():
            for url in (together, alone):
                answered(url, requests[:8], 2)  # warm
            for width in map(int, clients.split(",")):
                for number in range(rounds):
                    sides = [("together", together), ("one at a time", alone)]
                    for side, url in sides if number % 2 else sides[::-1]:
                        found, seconds = answered(url, _shuffled(requests, f"{width}-{number}"), width)
                        results.append(
                            {"load": name, "clients": width, "side": side, "round": number, **figures(found, seconds)}
                        )
    document = {"benchmark": "serving-throughput", "machine": machine(), "tokens": tokens, "runs": results}
    report(document, tables(results), target)


def _shuffled(requests: Requests, mark: str) -> Requests:
    """The same requests in another order; both servers have read each as often."""
    changed = list(requests)
    random.Random(mark).shuffle(changed)
    return changed


def tables(results: Sequence[dict[str, Any]]) -> list[Table]:
    """Medians over rounds."""
    made = []
    for load in dict.fromkeys(run["load"] for run in results):
        rows = []
        for width in dict.fromkeys(run["clients"] for run in results):
            for side in ("together", "one at a time"):
                runs = [run for run in results if (run["load"], run["clients"], run["side"]) == (load, width, side)]
                if runs:
                    rows.append(_row(width, side, runs))
        columns = ("clients", "server", "req/s", "tok/s", "first text p50, p95 ms", "between p50, p95, p99 ms")
        made.append(Table(load, rows, columns))
    return made


def _row(width: int, side: str, runs: Sequence[dict[str, Any]]) -> tuple[str, ...]:
    def middle(*path: str) -> float:
        found: list[float] = []
        for run in runs:
            value: Any = run
            for key in path:
                value = value[key]
            found.append(value)
        return statistics.median(found)

    first = ", ".join(f"{middle('first_ms', share):.0f}" for share in ("p50", "p95"))
    between = ", ".join(f"{middle('between_ms', share):.1f}" for share in ("p50", "p95", "p99"))
    speeds = (f"{middle('requests_per_second'):.2f}", f"{middle('tokens_per_second'):.0f}")
    return (str(width), side, *speeds, first, between)


if __name__ == "__main__":
    main()
