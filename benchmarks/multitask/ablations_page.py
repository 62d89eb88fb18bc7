"""Fills docs/ablations.md from the results of ablations.py, with a table and a plot for each ablation.

    python -m benchmarks.multitask.ablations_page

The output is deterministic: the same lines give the same bytes. Conclusions are written by hand outside the tables.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev

import click
import matplotlib as mpl
from matplotlib.figure import Figure as Canvas

from benchmarks.harness.markdown_tables import table
from benchmarks.harness.page_blocks import fill
from benchmarks.harness.plots import STYLE
from benchmarks.harness.result_lines import RESULTS, Lines, Record

from .ablations import ABLATIONS, KEYS, OURS, REFERENCE

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "ablations.md"
Runs = Mapping[str, list[Record]]  # value -> one record per seed


@click.command()
@click.option("--results", type=click.Path(exists=True, file_okay=False, path_type=Path), default=RESULTS)
@click.option("--document", default=DOCUMENT, type=click.Path(exists=True, dir_okay=False, path_type=Path))
def main(results: Path, document: Path) -> None:
    """Fill the document and draw its plots."""
    found = grouped(Lines(results / "ablations.jsonl", KEYS).read())
    tables = {name: table_of(runs, OURS[name]) for name, runs in found.items()}
    document.write_text(fill(document.read_text("utf-8"), tables), "utf-8")
    folder = document.parent / document.stem
    folder.mkdir(exist_ok=True)
    for name, runs in found.items():
        plot(name, runs).savefig(folder / f"{name.replace(' ', '-')}.svg", metadata={"Date": None})


def grouped(records: Sequence[Record]) -> dict[str, Runs]:
    """Ablation -> value -> runs, including the reference under its own value; ablations without runs are left out."""
    by_key: dict[tuple[str, str], list[Record]] = defaultdict(list)
    for record in records:
        by_key[record["ablation"], record["value"]].append(record)
    reference = by_key.get((REFERENCE, REFERENCE), [])
    found = {}
    for name, values in ABLATIONS.items():
        runs = {value: by_key[name, value] for value in values if (name, value) in by_key}
        if runs and reference:
            found[name] = _sorted({OURS[name]: reference} | runs)
    return found


def _sorted(runs: Runs) -> Runs:
    """Sort numeric values; leave others in their order, with the reference first."""
    try:
        return dict(sorted(runs.items(), key=lambda item: float(item[0])))
    except ValueError:
        return runs


def table_of(runs: Runs, ours: str) -> str:
    """A table with a row for each value; differences are to `ours`, the reference's value."""
    rows = []
    for value, records in runs.items():
        loss, accuracy = (f"{fmean(record[key] for record in records):.3f}" for key in ("loss", "accuracy"))
        rows.append(
            [value, loss, _difference(records, runs[ours]) if value != ours else "", accuracy, str(len(records))]
        )
    return table(("value", "loss", "difference (noise)", "accuracy", "seeds"), rows)


def _difference(records: Sequence[Record], reference: Sequence[Record]) -> str:
    """Mean difference in loss over tasks and seeds, with two standard errors."""
    beside = {record["seed"]: record["losses"] for record in reference}
    pairs = [(record["losses"], beside[record["seed"]]) for record in records if record["seed"] in beside]
    each = [mine[task] - theirs[task] for mine, theirs in pairs for task in mine]
    return f"{fmean(each):+.3f} ({2 * stdev(each) / len(each) ** 0.5:.3f})" if each else ""


def plot(name: str, runs: Runs) -> Canvas:
    """Loss and accuracy of every run, and their means over the seeds."""
    for key, value in STYLE.items():
        mpl.rcParams[key] = value
    canvas = Canvas(figsize=(7, 2.2), layout="constrained")
    for panel, key in zip(canvas.subplots(1, 2), ("loss", "accuracy"), strict=True):
        places = range(len(runs))
        panel.plot(places, [fmean(r[key] for r in records) for records in runs.values()], "-", color="C0", lw=1)
        for place, records in zip(places, runs.values(), strict=True):
            panel.plot([place] * len(records), [r[key] for r in records], "o", ms=3, color="C0")
        panel.set_xticks(places, list(runs), rotation=20)
        panel.set(title=f"{name}: {key}")
    return canvas


if __name__ == "__main__":
    main()
