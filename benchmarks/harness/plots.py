"""Fills docs/performance.md with tables and plots from the benchmarks' JSON files.

    python -m benchmarks.harness.plots benchmarks/results/*.json

The output is deterministic: the same files give the same bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import matplotlib as mpl
from matplotlib.figure import Figure as Canvas

from .markdown_tables import Document, threads
from .page_blocks import blocks, fill, grouped, size
from .rounds import Figure, Group, Spread, read

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "performance.md"
_ONLY = {"decode": 256, "prefill": 256}  # the one context or prompt length that the plots of rivals show
STYLE: dict[Any, Any] = {  # Any, because matplotlib types its keys as literals
    "svg.hashsalt": "lime-edge",
    "svg.fonttype": "none",  # text instead of outlines takes a quarter of the bytes
    "font.size": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
}
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
#: Benchmarks of this page; other files in the results folder belong to other pages.
PAGE = ("decode", "prefill", "roofline", "switch", "memory", "size")


@click.command()
@click.argument("results", nargs=-1, required=True, type=_FILE)
@click.option("--document", default=DOCUMENT, show_default=True, type=_FILE, help="The document to fill.")
def main(results: tuple[Path, ...], document: Path) -> None:
    """Fill the document and draw its plots."""
    found = [one for path in results if (one := read(path)).get("benchmark") in PAGE]
    document.write_text(fill(document.read_text("utf-8"), blocks(found)), "utf-8")
    folder = document.parent / document.stem
    folder.mkdir(exist_ok=True)
    for name, canvas in drawn(found).items():
        canvas.savefig(folder / f"{name}.svg", metadata={"Date": None})
        click.echo(folder / f"{name}.svg")


def drawn(documents: Sequence[Document]) -> dict[str, Canvas]:
    """Every plot that these files have data for, by name."""
    for key, value in STYLE.items():
        mpl.rcParams[key] = value
    groups, made = grouped(documents), {}
    for benchmark in ("decode", "prefill"):
        if entries := groups.get((benchmark, "skill")):
            made[benchmark] = ratios(entries, "untouched")
        if entries := [e for e in groups.get((benchmark, "rivals"), []) if size(e[1]) == _ONLY[benchmark]]:
            made[f"{benchmark}-rivals"] = times(entries)
    if lines := [(d["settings"]["threads"], line) for d in documents for line in d.get("lines", ())]:
        made["roofline"] = bounds(lines)
    return made


def ratios(entries: Sequence[tuple[int, Group]], against: str) -> Canvas:
    """Ratios to one variant with quartiles: a panel for each number of threads, a colour for each number of tokens."""
    canvas, panels = _panels(sorted({count for count, _ in entries}), 0.22 * len(entries[0][1].figures) + 1)
    for panel, count in panels:
        groups = [group for found, group in entries if found == count]
        names = [figure.name for figure in groups[0].figures if against in figure.ratios]
        for at, group in enumerate(groups):
            spreads = [group[name].ratios[against] for name in names]
            rows = [len(names) - row + 0.25 * (len(groups) / 2 - at) for row in range(len(names))]
            panel.errorbar(
                [s.median for s in spreads], rows, xerr=_reach(spreads), fmt="o", ms=3, label=f"{size(group):,} tokens"
            )
        panel.set_yticks(range(1, len(names) + 1), names[::-1])
        panel.axvline(1, color="grey", lw=0.8)
        panel.set(title=threads(count), xlabel=f"time / {against}")
        panel.legend(frameon=False)
    return canvas


def times(entries: Sequence[tuple[int, Group]]) -> Canvas:
    """Milliseconds of every variant, with quartiles."""
    canvas, panels = _panels(sorted({count for count, _ in entries}), 0.2 * len(entries[0][1].figures) + 1)
    for panel, count in panels:
        (group,) = (group for found, group in entries if found == count)
        shown: list[Figure] = group.figures[::-1]
        spreads = [figure.ms for figure in shown]
        colours = ["C0" if figure is group.figures[0] else "C7" for figure in shown]
        medians = [spread.median for spread in spreads]
        bars = panel.barh([figure.name for figure in shown], medians, xerr=_reach(spreads), color=colours)
        panel.bar_label(bars, [f"{median:.1f}" for median in medians], padding=6)
        panel.set(title=f"{threads(count)}, {size(group):,} tokens", xlabel="ms")
    return canvas


def bounds(lines: Sequence[tuple[int, Any]]) -> Canvas:
    """The measured time of a step and its lower bound."""
    canvas, panels = _panels(sorted({count for count, _ in lines}), 0.2 * len(lines) + 1)
    for panel, count in panels:
        shown = [line for found, line in lines if found == count][::-1]
        names = [f"{line['rows']} x {line['context']:,}: {line['variant']}" for line in shown]
        panel.barh(names, [1e3 * line["taken"] for line in shown], color="C7", label="taken")
        panel.barh(names, [1e3 * line["bound"] for line in shown], color="C0", label="bound")
        panel.set(title=threads(count), xlabel="ms")
        panel.legend(frameon=False)
    return canvas


def _panels(counts: Sequence[int], height: float) -> tuple[Canvas, list[tuple[Any, int]]]:
    """A canvas with one panel for each count, stacked vertically."""
    canvas = Canvas(figsize=(7, height * len(counts)), layout="constrained")
    axes = canvas.subplots(len(counts), squeeze=False)
    return canvas, list(zip(axes[:, 0], counts, strict=True))


def _reach(spreads: Sequence[Spread]) -> list[list[float]]:
    """Distances from the medians to the lower and upper quartiles, as error bars take them."""
    return [[s.median - s.low for s in spreads], [s.high - s.median for s in spreads]]


if __name__ == "__main__":
    main()
