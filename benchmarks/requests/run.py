"""What a request costs: the bare request to a skill, against the whole prompt to the base, to an earlier skill, and to
other engines with a LoRA for every task.

    python -m benchmarks.requests.run MODEL --task json DATA/test.jsonl NEW/json.lime OLD/json.lime [--task ...] \\
        [--stream mixed] [--rivals genai,llama --lora json FOLDER ... --gguf FILE --llama-python FILE] [--json FILE]

Each row is answered by every side, one after the other in an order that changes from row to row; ratios are taken row
by row. Sides:

- base: the untouched model with the full prompt, its instruction included;
- before: the earlier package with the full prompt, one token a step, nothing kept between requests;
- plain: the new package with the bare request, one token a step, nothing kept;
- cache: the same with the prefix cache;
- skill: the new package with the bare request, as the runtime does it by default: drafts, answer form, prefix cache;
- rivals: the full prompt to a LoRA (r = 8) trained on the same rows, without and with the engine's own speculation.
  Each keeps what a prompt has in common with the last one. Their times leave out tokenizer and text.

Streams: *mixed* has the rows of all tasks in random order, as an app with several features sends them, and a rival has
one cache, which ends where the adapter changes; *mixed, own caches* lets it keep one for every adapter; *alone* has the
rows of one task after the other, all caches warm.

Without drafts a step is one token; `steps` counts the runs of the model after the prompt. Answers of the base end after
--base-tokens tokens: it seldom stops by itself.
"""

from __future__ import annotations

import json
import random
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.console import Console
from rich.table import Table
from tokenizers import Tokenizer

from benchmarks.harness.rounds import Spread, machine, versions
from lime_edge import read_skill
from lime_edge.contract.model import read_contract
from lime_edge.contract.names import TOKENIZER_FILE
from lime_edge.evaluation.metrics import score
from lime_edge.runtime.model.directory import read_directory
from lime_edge.training import backbone

from .data import Request, parses, requests_of
from .rival_adapters import RivalAdapters
from .sides import CACHE, PLAIN, SKILL, Answered, Ask, Ours, Rivals, rivals

STREAMS = ("mixed", "mixed, own caches", "alone")
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
_LONGEST = 96  # tokens of a rival's answer
_PACKAGES = ("onnxruntime-genai",)


def answer(sides: Mapping[str, Ask], requests: Sequence[Request], one_cache: bool) -> Iterator[tuple[str, Answered]]:
    """Answer every request by every side, in an order that changes from request to request."""
    for number, request in enumerate(requests):
        order = random.Random(number).sample(list(sides), len(sides))
        for side in order:
            yield side, sides[side](request, one_cache)


def figures(
    done: Mapping[str, Sequence[Answered]], task: str | None, choices: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """One line for every side, over the requests of one task or of all."""
    mine = {side: [one for one in rows if task in (None, one.request.task)] for side, rows in done.items()}
    whole = np.array([one.seconds for one in mine[SKILL]])
    lines = [_line(side, rows, np.array([one.seconds for one in rows]) / whole, choices) for side, rows in mine.items()]
    for side, line in zip(mine, lines, strict=True):
        if side in (CACHE, SKILL) and PLAIN in mine:
            texts = zip(mine[side], mine[PLAIN], strict=True)
            line["differ_from_plain"] = sum(one.text != other.text for one, other in texts)
    return lines


def _line(side: str, rows: Sequence[Answered], ratio: Any, choices: Mapping[str, Any]) -> dict[str, Any]:
    drafted = sum(one.drafted for one in rows)
    found = score([one.text for one in rows], [one.request.answer for one in rows])
    parsed = [parses(one.text, one.request, choices[one.request.task]) for one in rows]
    known = [one for one in parsed if one is not None]
    return {
        "side": side,
        "ms": asdict(Spread.of([1000 * one.seconds for one in rows])),
        "p95": 1000 * float(np.percentile([one.seconds for one in rows], 95)),
        "requests_per_second": len(rows) / sum(one.seconds for one in rows),
        "time_of_skill": asdict(Spread.of(ratio)),
        "tokens_read": float(np.mean([one.read for one in rows])),
        "tokens_written": float(np.mean([one.written for one in rows])),
        "steps": float(np.mean([one.steps for one in rows])),
        "accepted": sum(one.accepted for one in rows) / drafted if drafted else None,
        "exact": found.exact,
        "f1": found.f1,
        "parse": sum(known) / len(known) if known else None,
    }


def table(title: str, lines: Sequence[dict[str, Any]]) -> Table:
    """A terminal table with one row for each side."""
    names = ("side", "ms", "p95", "a second", "/ skill", "read", "written", "steps", "accepted", "exact", "F1", "parse")
    made = Table(*names, title=title, title_justify="left")
    for one in lines:
        ratio = one["time_of_skill"]
        made.add_row(
            *(one["side"], f"{one['ms']['median']:.1f}", f"{one['p95']:.1f}", f"{one['requests_per_second']:.2f}"),
            f"{ratio['median']:.2f} ({ratio['low']:.2f} to {ratio['high']:.2f})",
            *(f"{one['tokens_read']:.0f}", f"{one['tokens_written']:.1f}", f"{one['steps']:.1f}"),
            "" if one["accepted"] is None else f"{one['accepted']:.2f}",
            *(f"{100 * one['exact']:.1f}", f"{100 * one['f1']:.1f}"),
            "" if one["parse"] is None else f"{100 * one['parse']:.0f} %",
        )
    return made


def streamed(stream: str, requests: Sequence[Request]) -> list[Request]:
    """The order of a stream: random, or one task after the other."""
    if stream != "alone":
        return random.Random(1).sample(list(requests), len(requests))
    return sorted(requests, key=lambda one: one.task)


@click.command()
@click.argument("model", type=_FOLDER)
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
@click.option("--stream", "streams", multiple=True, type=click.Choice(STREAMS), default=["mixed"], show_default=True)
@click.option("--side", "wanted", multiple=True, metavar="NAME", help="Sides of ours beside skill.  [default: all]")
@click.option("--rivals", "names", default="", metavar="NAMES", help="Some of genai,llama.")
@click.option(
    "--lora", "loras", multiple=True, type=(str, _FOLDER), metavar="NAME FOLDER", help="PEFT folder of a task."
)
@click.option("--gguf", type=_FILE, help="The backbone for llama.cpp.")
@click.option("--llama-python", metavar="FILE", help="Interpreter that has llama_cpp.  [default: this one]")
@click.option("-m", "--backbone", "source", default=backbone.DEFAULT, show_default=True, help="The backbone.")
@click.option("--work", type=click.Path(path_type=Path), help="Folder that keeps the rivals' files for later runs.")
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
    streams: Sequence[str],
    wanted: Sequence[str],
    names: str,
    loras: Sequence[tuple[str, Path]],
    gguf: Path | None,
    llama_python: str | None,
    source: str,
    work: Path | None,
    threads: int,
    base_tokens: int,
    target: Path | None,
) -> None:
    """Answer the test rows of several tasks by every side."""
    requests = [request for name, data, _, _ in tasks for request in requests_of(name, data, rows)]
    ours = Ours(model, {name: (new, old) for name, _, new, old in tasks}, threads, base_tokens)
    forms = {name: read_skill(new).manifest.interface.answers for name, _, new, _ in tasks}
    choices = {name: form.value if form.kind == "choices" else None for name, form in forms.items()}
    positions = max(len(ours.prompt(request)) for request in requests) + _LONGEST + 1
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = work or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        precision: Any = read_contract(model).precision
        adapters = RivalAdapters(folder, dict(loras), backbone.resolve(source), precision, gguf)
        settings = {"threads": threads, "positions": positions, "ends": sorted(read_directory(model, False).eos_ids)}
        with rivals([name for name in names.split(",") if name], adapters, llama_python, **settings) as running:
            theirs = Rivals(running, ours, Tokenizer.from_file(str(model / TOKENIZER_FILE)), _LONGEST)
            kept = {side: ask for side, ask in ours.sides().items() if side == SKILL or not wanted or side in wanted}
            sides = {**kept, **theirs.sides()}
            notes = {rival.titled(variant): text for rival in running for variant, text in rival.variants.items()}
            about = {"what": "requests", "threads": threads, "rows": rows, "base_tokens": base_tokens, "notes": notes}
            about["machine"] = {**machine(), "rivals": versions(_PACKAGES)}
            for stream in streams:
                found[stream] = _stream(stream, sides, requests, [name for name, *_ in tasks], choices)
                if target is not None:  # after every stream: what was measured stays if the next one is interrupted
                    target.write_text(json.dumps(about | {"streams": found}, indent=1) + "\n", "utf-8")


def _stream(
    stream: str, sides: Mapping[str, Ask], requests: Sequence[Request], tasks: Sequence[str], choices: Mapping[str, Any]
) -> dict[str, Any]:
    """Answer one stream, print its tables and return its lines by task."""
    order, console = streamed(stream, requests), Console(width=170)
    warm = [Request(task, "Hello", "Hello", "") for task in tasks]  # none of the stream: it would be kept
    for ask in sides.values():  # sessions take memory and skills are read when they are first used
        for request in warm:
            ask(request, stream == "mixed")
    done: dict[str, list[Answered]] = defaultdict(list)
    for side, answered in answer(sides, order, stream == "mixed"):
        done[side].append(answered)
    kept = {side: done[side] for side in sides}
    found = {"all": figures(kept, None, choices)} | {task: figures(kept, task, choices) for task in tasks}
    for name, lines in found.items():
        console.print(table(f"{stream}, {name}", lines))
    return found


if __name__ == "__main__":
    main()
