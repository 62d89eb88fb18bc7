"""Fills docs/requests.md with tables from the result files of requests, drafts and contexts.

    python -m benchmarks.requests.page benchmarks/results/requests/*.json

The output is deterministic: the same files give the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from benchmarks.harness.markdown_tables import table, threads
from benchmarks.harness.page_blocks import fill

from .sides import BEFORE, OURS, SKILL

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "requests.md"
Line = Mapping[str, Any]
_SIDE = ("side", "ms, median (p95)", "a second", "time of the skill", "read", "written", "steps", "accepted")
_SCORED = (*_SIDE, "exact", "F1", "parse")
_GOALS = {"mixed": 3.0, "json": 1.5, "router": 1.5}  # how many times as fast as the best rival; 1 for the others
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command()
@click.argument("results", nargs=-1, required=True, type=_FILE)
@click.option("--document", default=DOCUMENT, show_default=True, type=_FILE, help="The document to fill.")
def main(results: tuple[Path, ...], document: Path) -> None:
    """Fill the document."""
    found = [json.loads(path.read_text("utf-8")) for path in results]
    document.write_text(fill(document.read_text("utf-8"), blocks(found)), "utf-8")


def blocks(documents: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Every block that these files can fill, by name."""
    made: dict[str, list[str]] = {}
    for one in _merged(documents):
        for stream, tasks in one["streams"].items():
            made.setdefault(stream.replace(",", ""), []).extend(_stream(stream, tasks, one["threads"]))
        made.setdefault("goals", []).extend(_goals(one))
        made["engines"] = [table(("side", "what it is"), sorted(one["notes"].items()))]
    for document in sorted(documents, key=_threads):
        if document.get("benchmark") == "drafts":
            made.setdefault("drafts", []).append(_drafts(document))
        elif document.get("benchmark") == "contexts":
            made.setdefault("contexts", []).append(_contexts(document))
    return {name: "\n".join(parts) for name, parts in made.items()}


def _merged(documents: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One document of requests for each number of threads, with all streams that were run."""
    found: dict[int, dict[str, Any]] = {}
    for one in documents:
        if one.get("what") == "requests":
            made = found.setdefault(one["threads"], {"threads": one["threads"], "streams": {}, "notes": {}})
            for stream, tasks in one["streams"].items():
                made["streams"].setdefault(stream, {}).update(tasks)
            made["notes"] |= one["notes"]
    return [found[count] for count in sorted(found)]


def _threads(document: Mapping[str, Any]) -> int:
    return int(document["threads"] if "threads" in document else document["settings"]["threads"])


def _stream(stream: str, tasks: Mapping[str, Sequence[Line]], count: int) -> Iterator[str]:
    """One table for all tasks of a mixed stream; one for each task of the stream in which each is alone."""
    for task, lines in tasks.items():
        if (task == "all") != (stream == "alone"):
            title = threads(count) if task == "all" else f"{task}, {threads(count)}"
            yield f"{title}\n\n{table(_SCORED, map(_cells, lines))}"


def _cells(line: Line) -> list[str]:
    ratio, accepted, parse = line["time_of_skill"], line["accepted"], line["parse"]
    own = "1" if line["side"] == SKILL else f"{ratio['median']:.2f} ({ratio['low']:.2f} to {ratio['high']:.2f})"
    return [
        *(line["side"], f"{line['ms']['median']:.0f} ({line['p95']:.0f})", f"{line['requests_per_second']:.2f}", own),
        *(f"{line['tokens_read']:.0f}", f"{line['tokens_written']:.1f}", f"{line['steps']:.1f}"),
        "" if accepted is None else f"{100 * accepted:.0f} %",
        *(f"{100 * line['exact']:.1f}", f"{100 * line['f1']:.1f}"),
        "" if parse is None else f"{100 * parse:.0f} %",
    ]


def _goals(document: Mapping[str, Any]) -> Iterator[str]:
    """A table of what was wanted: requests a second against the best rival, and scores."""
    rows = []
    for stream, name in (("mixed", "all"), *(("alone", task) for task in document["streams"].get("alone", {}))):
        lines = document["streams"].get(stream, {}).get(name, ())
        rivals = [line for line in lines if line["side"] not in OURS]
        if not rivals or (stream == "alone" and name == "all"):
            continue
        (own,) = (line for line in lines if line["side"] == SKILL)
        best = max(rivals, key=lambda line: line["requests_per_second"])
        times = own["requests_per_second"] / best["requests_per_second"]
        goal = _GOALS["mixed"] if stream == "mixed" else _GOALS.get(name, 1.0)
        what = "requests a second, mixed" if stream == "mixed" else f"requests a second, {name} alone"
        met = "met" if times >= goal else "**missed**"
        rows.append((what, f">= {goal} of the best rival", f"{times:.2f} ({best['side']})", met))
    rows += _scores(document)
    if rows:
        yield f"{threads(document['threads'])}\n\n{table(('what', 'goal', 'measured', ''), rows)}"


def _scores(document: Mapping[str, Any]) -> Iterator[tuple[str, str, str, str]]:
    """Scores against the better of the skill before and the rivals: F1, which for labels is the accuracy."""
    before = document["streams"].get("mixed", {})
    for task, lines in document["streams"].get("alone", {}).items():
        if task == "all":
            continue
        others = [
            line for line in [*lines, *before.get(task, ())] if line["side"] not in OURS or line["side"] == BEFORE
        ]
        if not others:
            continue
        (own,) = (line for line in lines if line["side"] == SKILL)
        best = max(others, key=lambda line: line["f1"])
        behind = 100 * (best["f1"] - own["f1"])
        said = f"{100 * own['f1']:.1f}, {100 * best['f1']:.1f} ({best['side']})"
        yield f"F1, {task}", "at most 1 point below the best", said, "met" if behind <= 1 else "**missed**"


def _drafts(document: Mapping[str, Any]) -> str:
    rows = []
    for group in document["groups"]:
        for figure in group["figures"]:
            side = group["what"]["sides"][figure["name"]]
            ratio = figure["ratios"].get("untouched")
            every = side["answers_without_steps"] == group["rounds"]
            rate = f"{side['tokens_per_second']:.0f}" if side["tokens_per_second"] and not every else ""
            times = f"{side['times_untouched']:.2f}" if side["times_untouched"] and not every else ""
            spread = f"{1 / ratio['median']:.2f} ({1 / ratio['high']:.2f} to {1 / ratio['low']:.2f})" if ratio else ""
            drafts = f"{side['accepted']} of {side['drafted']}" if side["drafted"] else ""
            none = str(side["answers_without_steps"] or "")
            rows.append((group["title"], figure["name"], rate, times, "" if every else spread, drafts, none))
    names = ("requests", "side", "tokens a second", "times untouched", "of one request (quartiles)", "drafts accepted")
    return table((*names, "answers without a step"), rows)


def _contexts(document: Mapping[str, Any]) -> str:
    rows = []
    for group in document["groups"]:
        again, kept = group["figures"]
        (ratio,) = kept["ratios"].values()
        times = f"{ratio['median']:.3f} ({ratio['low']:.3f} to {ratio['high']:.3f})"
        rows.append((group["title"], f"{again['ms']['median']:.0f}", f"{kept['ms']['median']:.0f}", times))
    return table(("what", "read again, ms", "kept, ms", "ratio (quartiles)"), rows)


if __name__ == "__main__":
    main()
