"""What a request costs: the bare request to a skill, against the whole prompt to the base and to an earlier skill.

    python -m benchmarks.requests.run MODEL --task json DATA/test.jsonl NEW/json.lime OLD/json.lime [--task ...]

The rows of all tasks are mixed in one stream, as an app with several features sends them. Each row is answered by every
side, one after the other in an order that changes from row to row; ratios are taken row by row. Sides:

- base: the untouched model with the full prompt, its instruction included;
- before: the earlier package with the full prompt, one token a step, nothing kept between requests;
- plain: the new package with the bare request, one token a step;
- skill: the new package with the bare request, as the runtime does it by default: drafts, answer form, prefix cache.

Without drafts a step is one token; `steps` counts the runs of the graph after the prompt. Answers of the base end after
--base-tokens tokens: it seldom stops by itself.
"""

from __future__ import annotations

import json
import random
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.harness.rounds import Spread, machine
from lime_edge import Runtime
from lime_edge.evaluation.examples import Row, read_rows
from lime_edge.evaluation.instruction import Instruction
from lime_edge.evaluation.metrics import score
from lime_edge.runtime.decoding.kv_cache import Cache
from lime_edge.runtime.types import Generation

SIDES = ("base", "before", "plain", "skill")
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@dataclass(frozen=True)
class Request:
    """One row of one task: the full prompt, the bare request, and the answer that the data set has."""

    task: str
    full: str
    bare: str
    answer: str


@dataclass(frozen=True)
class Answered:
    """What one side made of one request."""

    request: Request
    seconds: float
    steps: int
    found: Generation


class Sides:
    """The runtimes and their skills.

    Args:
        model: The exported model directory.
        skills: New and earlier package of every task.
        threads: Of ONNX Runtime.
        base_tokens: Maximum number of tokens of the base's answers.
    """

    def __init__(self, model: Path, skills: dict[str, tuple[Path, Path]], threads: int, base_tokens: int) -> None:
        self._new = Runtime.load(model, threads=threads)
        self._plain = Runtime.load(model, threads=threads, prefix_cache=0)
        self._base_tokens = base_tokens
        for task, (new, old) in skills.items():
            self._new.load_skill(new, task)
            self._plain.load_skill(new, task)
            self._plain.load_skill(old, f"{task} before")

    def ask(self, side: str, request: Request) -> Generation:
        """Answer one request as one side."""
        if side == "skill":
            return self._new.generate(request.bare, request.task)
        if side == "plain":
            return self._plain.generate(request.bare, request.task, speculate=False)
        skill, most = (None, self._base_tokens) if side == "base" else (f"{request.task} before", None)
        message = [{"role": "user", "content": request.full}]
        return self._plain.generate(message, skill, speculate=False, max_new_tokens=most)


def requests_of(task: str, data: Path, count: int | None) -> list[Request]:
    """The rows of a data set, as the base gets them and as a skill gets them."""
    rows = read_rows(data)
    instruction = Instruction.of(rows)
    picked = rows if count is None else random.Random(0).sample(rows, min(count, len(rows)))
    return [_request(task, row, instruction) for row in picked]


def _request(task: str, row: Row, instruction: Instruction) -> Request:
    full = row.messages[0]["content"]
    return Request(task, full, instruction.bare(full), row.answer)


def answer(sides: Sides, requests: Sequence[Request]) -> Iterator[tuple[str, Answered]]:
    """Answer every request by every side, in an order that changes from request to request."""
    steps = _count_steps()
    for number, request in enumerate(requests):
        order = random.Random(number).sample(SIDES, len(SIDES))
        for side in order:
            steps.clear()
            began = time.perf_counter()
            found = sides.ask(side, request)
            yield side, Answered(request, time.perf_counter() - began, len(steps), found)


def _count_steps() -> list[int]:
    """A list that grows by one with each step after a prompt."""
    steps: list[int] = []
    extend, step = Cache.extend, Cache.step

    def extended(self: Cache, row: int, ids: Any, skills: Any) -> Any:
        steps.append(len(ids))
        return extend(self, row, ids, skills)

    def stepped(self: Cache, ids: Any, skills: Any) -> Any:
        steps.append(len(ids))
        return step(self, ids, skills)

    setattr(Cache, "extend", extended)  # noqa: B010  # mypy takes no assignment to a method
    setattr(Cache, "step", stepped)  # noqa: B010
    return steps


def figures(done: dict[str, list[Answered]], task: str | None) -> list[dict[str, Any]]:
    """One line for every side, over the requests of one task or of all."""
    mine = {side: [one for one in done[side] if task in (None, one.request.task)] for side in SIDES}
    whole = np.array([one.seconds for one in mine["skill"]])
    return [_line(side, mine[side], np.array([one.seconds for one in mine[side]]) / whole) for side in SIDES]


def _line(side: str, rows: Sequence[Answered], ratio: Any) -> dict[str, Any]:
    timings = [one.found.timings for one in rows]
    drafted = sum(one.drafted_tokens for one in timings)
    found = score([one.found.text for one in rows], [one.request.answer for one in rows])
    return {
        "side": side,
        "ms": asdict(Spread.of([1000 * one.seconds for one in rows])),
        "p95": 1000 * float(np.percentile([one.seconds for one in rows], 95)),
        "requests_per_second": len(rows) / sum(one.seconds for one in rows),
        "time_of_skill": asdict(Spread.of(ratio)),
        "tokens_read": float(np.mean([one.prompt_tokens - one.reused_tokens for one in timings])),
        "tokens_written": float(np.mean([one.new_tokens for one in timings])),
        "steps": float(np.mean([one.steps for one in rows])),
        "accepted": sum(one.accepted_tokens for one in timings) / drafted if drafted else None,
        "exact": found.exact,
        "f1": found.f1,
    }


def table(title: str, lines: Sequence[dict[str, Any]]) -> Table:
    """A terminal table with one row for each side."""
    names = ("side", "ms", "p95", "a second", "/ skill", "read", "written", "steps", "accepted", "exact", "F1")
    made = Table(*names, title=title, title_justify="left")
    for one in lines:
        ratio = one["time_of_skill"]
        made.add_row(
            *(one["side"], f"{one['ms']['median']:.1f}", f"{one['p95']:.1f}", f"{one['requests_per_second']:.2f}"),
            f"{ratio['median']:.2f} ({ratio['low']:.2f} to {ratio['high']:.2f})",
            *(f"{one['tokens_read']:.0f}", f"{one['tokens_written']:.1f}", f"{one['steps']:.1f}"),
            "" if one["accepted"] is None else f"{one['accepted']:.2f}",
            *(f"{100 * one['exact']:.1f}", f"{100 * one['f1']:.1f}"),
        )
    return made


@click.command()
@click.argument("model", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--task",
    "tasks",
    multiple=True,
    required=True,
    type=(str, _FILE, _FILE, _FILE),
    metavar="NAME DATA NEW OLD",
    help="Name, test rows, new package, earlier package; may be repeated.",
)
@click.option("--rows", type=click.IntRange(1), help="Rows of each task.  [default: all]")
@click.option("--threads", default=2, show_default=True, type=click.IntRange(1))
@click.option(
    "--base-tokens", default=32, show_default=True, type=click.IntRange(1), help="Tokens of the base's answers."
)
@click.option(
    "--json", "target", type=click.Path(dir_okay=False, path_type=Path), help="Write all figures to this file."
)
def main(
    model: Path,
    tasks: Sequence[tuple[str, Path, Path, Path]],
    rows: int | None,
    threads: int,
    base_tokens: int,
    target: Path | None,
) -> None:
    """Answer the test rows of several tasks, mixed, by every side."""
    requests = [request for name, data, _, _ in tasks for request in requests_of(name, data, rows)]
    random.Random(1).shuffle(requests)
    sides = Sides(model, {name: (new, old) for name, _, new, old in tasks}, threads, base_tokens)
    done: dict[str, list[Answered]] = defaultdict(list)
    for side, answered in answer(sides, requests):
        done[side].append(answered)
    found = {"all": figures(done, None)} | {name: figures(done, name) for name, *_ in tasks}
    console = Console(width=130)
    for name, lines in found.items():
        console.print(table(f"{name}, {threads} threads", lines))
    if target is not None:
        document = {
            "what": "requests",
            "threads": threads,
            "machine": machine(),
            "tasks": found,
        }
        target.write_text(json.dumps(document, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
