"""Fills docs/results.md with tables and plot of the multi-task comparison, from the results of run.py.

    python -m benchmarks.multitask.tables benchmarks/results/multitask.jsonl --speed benchmarks/results/train-speed.json

The output is deterministic: the same files give the same bytes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import click
import matplotlib as mpl
from matplotlib.figure import Figure as Canvas

from benchmarks.harness.markdown_tables import table
from benchmarks.harness.page_blocks import fill, held
from benchmarks.harness.plots import STYLE
from benchmarks.harness.rounds import read

from .data import TASKS

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "results.md"
TITLES = {
    "commonsense_reasoning": "Commonsense",
    "glue": "GLUE",
    "high_level_reasoning": "High-level reasoning",
    "vision_benchmark": "ScienceQA, text",
    "object_motion_spatial": "Shuffled objects",
}
#: LiME-X and the ordinary mixture of the same adapters, compared in the table of pairs.
PAIRS = (("lime-lora", "moelora"), ("lime-lora-fa", "moelora-fa"), ("lime-dora", "moedora"))
_ORDER = ("LiME", "mixture", "PEFT")
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)

Line = Mapping[str, Any]  # one finished run


@dataclass(frozen=True)
class Row:
    """All runs of one method."""

    name: str
    runs: Sequence[Line]

    @property
    def title(self) -> str:
        return str(self.runs[0]["title"])

    @property
    def trained(self) -> int:
        return int(self.runs[0]["trained"])

    def category(self, name: str) -> list[float]:
        """A category's value in percent for each run: the mean over tasks of the mean over a task's metrics."""
        return [100 * fmean(fmean(run["scores"][task].values()) for task in TASKS[name]) for run in self.runs]

    def overall(self) -> list[float]:
        """The mean over all tasks in percent, for each run."""
        tasks = [task for some in TASKS.values() for task in some]
        return [100 * fmean(fmean(run["scores"][task].values()) for task in tasks) for run in self.runs]

    def loss(self) -> list[float]:
        """The mean over tasks of the right answers' loss per token, for each run."""
        return [fmean(run["losses"].values()) for run in self.runs]

    def losses(self) -> dict[str, float]:
        """Mean loss over the runs, for each task."""
        return {task: fmean(run["losses"][task] for run in self.runs) for task in self.runs[0]["losses"]}

    def error(self, name: str) -> float:
        """Standard error of a category in points, from the number of rows, as if all metrics were accuracies."""
        tasks, rows = TASKS[name], self.runs[0]["budget"]["test_rows"] * len(self.runs)
        shares = [fmean(fmean(run["scores"][task].values()) for run in self.runs) for task in tasks]
        return 100 * math.sqrt(sum(max(s * (1 - s), 0.0) / rows for s in shares)) / len(tasks)


@click.command()
@click.argument("results", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--speed", type=_FILE, help="Results of benchmarks.speed.train_speed.")
@click.option("--document", default=DOCUMENT, show_default=True, type=_FILE, help="The document to fill.")
def main(results: Path, speed: Path | None, document: Path) -> None:
    """Fill the document and draw its plot."""
    lines = results.read_text("utf-8").splitlines() if results.exists() else []  # --speed may come first
    rows = methods(list(map(json.loads, lines)))
    found = (blocks(rows) if rows else {}) | ({} if speed is None else {"train speed": speeds(read(speed))})
    text = document.read_text("utf-8")
    document.write_text(fill(text, held(text) | found), "utf-8")
    if not rows:
        return
    folder = document.parent / document.stem
    folder.mkdir(exist_ok=True)
    plot(rows).savefig(folder / "multitask.svg", metadata={"Date": None})


def methods(lines: Sequence[Line]) -> list[Row]:
    """Finished runs by method: LiME, then mixtures, then PEFT, each in the order of the file.

    Raises:
        click.ClickException: The runs have different budgets and cannot be compared.
    """
    if len({json.dumps([line["budget"], line["split"]], sort_keys=True) for line in lines}) > 1:
        raise click.ClickException("the runs have several budgets or splits; expected one of each")
    names = dict.fromkeys(line["method"] for line in lines)
    rows = [Row(name, [line for line in lines if line["method"] == name]) for name in names]
    return sorted(rows, key=lambda row: _ORDER.index(row.runs[0]["family"]))


def blocks(rows: Sequence[Row]) -> dict[str, str]:
    """Text of every block, by name."""
    return {"multitask": _main_table(rows), "multitask pairs": _pairs(rows), "multitask tasks": _task_table(rows)}


def _main_table(rows: Sequence[Row]) -> str:
    header = ["method", "trained", "runs", *TITLES.values(), "all tasks", "loss", "samples / CPU s", "peak MB"]
    lines = [
        [
            row.title,
            f"{row.trained / 1e6:.3f}M",
            str(len(row.runs)),
            *(_spread(row.category(name)) for name in TITLES),
            _spread(row.overall()),
            _spread(row.loss(), 3),
            f"{fmean(run['samples_per_cpu_s'] for run in row.runs):.2f}",
            f"{max(run['peak_mb'] for run in row.runs):,}",
        ]
        for row in rows
    ]
    return table(header, lines)


def _spread(values: Sequence[float], digits: int = 1) -> str:
    mean = f"{fmean(values):.{digits}f}"
    return f"{mean} ± {stdev(values):.{digits}f}" if len(values) > 1 else mean


def _pairs(rows: Sequence[Row]) -> str:
    """Differences of LiME-X and MoE-X; one larger than two standard errors counts."""
    known = {row.name: row for row in rows}
    lines = []
    for ours, theirs in PAIRS:
        if ours not in known or theirs not in known:
            continue
        one, other = known[ours], known[theirs]
        cells = []
        for name in TITLES:
            gap = fmean(one.category(name)) - fmean(other.category(name))
            noise = 2 * math.hypot(one.error(name), other.error(name))
            cells.append(f"{gap:+.1f} (noise {noise:.1f})" + (" **below**" if gap < -noise else ""))
        name, ratio = f"{one.title} - {other.title}", f"{one.trained / other.trained:.3f}"
        lines.append([name, ratio, *cells, _loss_gap(one.losses(), other.losses())])
    header = ["pair", "trained, ratio", *TITLES.values(), "loss"]
    return table(header, lines) if lines else "Not measured yet.\n"


def _loss_gap(ours: Mapping[str, float], theirs: Mapping[str, float]) -> str:
    """Mean difference over the tasks; its noise is two standard errors from the spread of the tasks' differences."""
    gaps = [ours[task] - theirs[task] for task in ours]
    noise = 2 * stdev(gaps) / math.sqrt(len(gaps))
    return f"{fmean(gaps):+.3f} (noise {noise:.3f})" + (" **above**" if fmean(gaps) > noise else "")


def _task_table(rows: Sequence[Row]) -> str:
    names = [task for some in TASKS.values() for task in some]
    lines = []
    for task in names:
        metrics = list(rows[0].runs[0]["scores"][task])
        cells = [
            " / ".join(f"{100 * fmean(run['scores'][task][m] for run in row.runs):.1f}" for m in metrics)
            for row in rows
        ]
        lines.append([task, " / ".join(metrics), *cells])
    return table(["task", "metric", *(row.title for row in rows)], lines)


def speeds(document: Mapping[str, Any]) -> str:
    """Table of step times and ratios."""
    lines = []
    for group in document["groups"]:
        for figure in group.figures:
            ratios = figure.ratios or {"": None}
            for other, ratio in ratios.items():
                cell = "" if ratio is None else f"{ratio.median:.3f} ({ratio.low:.3f}..{ratio.high:.3f})"
                lines.append([figure.name, f"{figure.ms.median:.0f}", other, cell])
    return table(("method", "CPU ms a step", "against", "ratio (quartiles)"), lines)


def plot(rows: Sequence[Row]) -> Canvas:
    """Plot of the mean over all tasks against the number of trained parameters."""
    mpl.rcParams.update(STYLE)
    canvas = Canvas(figsize=(7, 4), layout="constrained")
    panel = canvas.subplots()
    for place, family in enumerate(_ORDER):
        some = [row for row in rows if row.runs[0]["family"] == family]
        spread = [stdev(row.overall()) if len(row.runs) > 1 else 0.0 for row in some]
        values = [fmean(row.overall()) for row in some]
        panel.errorbar(
            [row.trained for row in some], values, yerr=spread, fmt="o", ms=4, color=f"C{place}", label=family
        )
        for row, value in zip(some, values, strict=True):
            panel.annotate(row.title, (row.trained, value), xytext=(4, 3), textcoords="offset points", fontsize=6)
    panel.set_xscale("log")
    panel.set(xlabel="trained parameters", ylabel="mean over all tasks, %")
    panel.legend(frameon=False)
    return canvas


if __name__ == "__main__":
    main()
