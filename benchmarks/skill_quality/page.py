"""Fills docs/results-skills.md with tables and the plot of quality against file size, from the results of run.py.

    python -m benchmarks.skill_quality.page

The output is deterministic: the same lines give the same bytes. Two methods are compared on the tasks that both ran on.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import click
import matplotlib as mpl
from matplotlib.figure import Figure as Canvas

from benchmarks.harness.markdown_tables import table
from benchmarks.harness.page_blocks import fill
from benchmarks.harness.plots import STYLE
from benchmarks.harness.result_lines import RESULTS, Lines, Record
from benchmarks.parity import isolation

from . import parts
from .methods import METHODS
from .run import KEYS, TASKS

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "results-skills.md"
ANCHOR = "lora-8"
_ORDER = ("base", *METHODS)
Runs = Mapping[str, Mapping[str, list[Record]]]  # method -> task -> one record per seed


@click.command()
@click.option("--results", type=click.Path(exists=True, file_okay=False, path_type=Path), default=RESULTS)
@click.option("--document", default=DOCUMENT, type=click.Path(exists=True, dir_okay=False, path_type=Path))
def main(results: Path, document: Path) -> None:
    """Fill the document and draw its plot."""
    runs = grouped(Lines(results / "skills.jsonl", KEYS).read())
    rates = Lines(results / "skill-rates.jsonl", (*KEYS, "rate")).read()
    made = blocks(runs, rates)
    if measured := Lines(results / "skill-parts.jsonl", parts.KEYS).read():
        made["parts"] = _parts(measured)
    if (apart := results / "isolation.json").is_file():
        made["isolation"] = isolation.report(json.loads(apart.read_text("utf-8")))
    document.write_text(fill(document.read_text("utf-8"), made), "utf-8")
    folder = document.parent / document.stem
    folder.mkdir(exist_ok=True)
    pareto(runs).savefig(folder / "pareto.svg", metadata={"Date": None})


def grouped(records: Iterable[Record]) -> Runs:
    """Group records by method and task, in the order of the tables."""
    found: dict[str, dict[str, list[Record]]] = defaultdict(lambda: defaultdict(list))
    for record in records:
        found[record["method"]][record["task"]].append(record)
    return {method: found[method] for method in _ORDER if method in found}


def blocks(runs: Runs, rates: Sequence[Record]) -> dict[str, str]:
    """Every table that has data, by the name of its block."""
    made: dict[str, str] = {}
    if runs:
        made["methods"] = table(_METHODS_HEADER, [_method(name, runs) for name in runs])
        tasks = [task for task in TASKS if any(task in by_task for by_task in runs.values())]
        for name, key in (("scores", "score"), ("losses", "loss")):
            rows = [[method, *(_cell(by_task.get(task), key) for task in tasks)] for method, by_task in runs.items()]
            made[name] = table(("method", *(_title(task, runs) for task in tasks)), rows)
    if stored := [r for by_task in runs.values() for rs in by_task.values() for r in rs if "loss_4_bits" in r]:
        rows = [
            [r["task"], str(r["seed"]), *(f"{r[key]:.4f}" for key in ("loss_32_bits", "loss", "loss_4_bits"))]
            for r in stored
        ]
        made["storage"] = table(("task", "seed", "loss as trained, 32 bits", "as stored, I8", "4 bits"), rows)
    if rates:
        made["rates"] = _rates(rates)
    return made


_METHODS_HEADER = (
    "method",
    "numbers",
    "file, KB",
    "with 2-byte numbers, KB",
    "tasks",
    "score, points",
    "- LoRA r=8",
    "loss",
    "- LoRA r=8",
)


def _method(name: str, runs: Runs) -> list[str]:
    first = next(iter(runs[name].values()))[0]
    sizes = [f"{first[key] / 1e3:,.0f}" if key in first else "" for key in ("bytes", "smallest_bytes")]
    numbers = f"{first['numbers']:,}" if "numbers" in first else "0"
    score, loss = (fmean(mean(rs, key) for rs in runs[name].values()) for key in ("score", "loss"))
    higher, worse = (against(name, ANCHOR, key, runs) for key in ("score", "loss"))
    points = "" if higher is None else f"{100 * higher:+.1f}"
    losses = "" if worse is None else f"{worse:+.3f}"
    return [name, numbers, *sizes, str(len(runs[name])), f"{100 * score:.1f}", points, f"{loss:.3f}", losses]


def _rates(rates: Sequence[Record]) -> str:
    """Table of validation losses by method and rate, on the tasks that serve to choose rates."""
    tasks = sorted({record["task"] for record in rates})
    losses: dict[tuple[str, float], dict[str, float]] = {}
    for record in rates:
        losses.setdefault((record["method"], record["rate"]), {})[record["task"]] = record["valid_loss"]
    rows = [
        [method, f"{rate:g}", *(f"{found[task]:.4f}" if task in found else "" for task in tasks)]
        for (method, rate), found in sorted(losses.items())
    ]
    return table(("method", "rate", *tasks), rows)


def _parts(records: Sequence[Record]) -> str:
    found = {(r["variant"], r["skill"]): f"{r['loss']:.3f}" for r in records}
    names = [name for name in parts.VARIANTS if any((name, skill) in found for skill in parts.SKILLS)]
    rows = [[name, *(found.get((name, skill), "") for skill in parts.SKILLS)] for name in names]
    return table(("loss", *parts.SKILLS), rows)


def mean(records: Sequence[Record], key: str) -> float:
    """Mean of a value over the seeds."""
    return fmean(record[key] for record in records)


def against(name: str, other: str, key: str, runs: Runs) -> float | None:
    """Mean difference of two methods over the tasks that both ran on; None if there are none."""
    both = [task for task in runs[name] if task in runs.get(other, {})]
    return fmean(mean(runs[name][task], key) - mean(runs[other][task], key) for task in both) if both else None


def _cell(records: Sequence[Record] | None, key: str) -> str:
    if not records:
        return ""
    return f"{100 * mean(records, key):.1f}" if key == "score" else f"{mean(records, key):.3f}"


def _title(task: str, runs: Runs) -> str:
    return f"{task}, {next(by_task[task][0]['metric'] for by_task in runs.values() if task in by_task)}"


def pareto(runs: Runs) -> Canvas:
    """Plot of the difference to LoRA r=8, in points and in loss, against file size with at most 2 bytes per number."""
    for key, value in STYLE.items():
        mpl.rcParams[key] = value
    canvas = Canvas(figsize=(8, 7), layout="constrained")
    panels: Any = canvas.subplots(2)
    for panel, key, factor, label in zip(
        panels, ("score", "loss"), (100, 1), ("points above LoRA r=8", "loss above LoRA r=8"), strict=True
    ):
        for name in runs:
            first = next(iter(runs[name].values()))[0]
            difference = against(name, ANCHOR, key, runs)
            if "smallest_bytes" in first and difference is not None:
                x, y = first["smallest_bytes"] / 1e3, factor * difference
                panel.plot(x, y, "o", ms=4, color="C0" if name.startswith("lime") else "C7")
                panel.annotate(f"{name} ({len(runs[name])})", (x, y), (3, 3), textcoords="offset points", fontsize=6)
        panel.axhline(0, color="grey", lw=0.8)
        panel.set(xscale="log", xlabel="KB (tasks measured in brackets)", ylabel=label)
    return canvas


if __name__ == "__main__":
    main()
