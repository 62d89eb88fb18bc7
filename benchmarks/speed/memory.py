"""Memory with 1, 100 and 1,000 skills, and the time from process start to the first token, cold and warm.

    python -m benchmarks.speed.memory EXPORTED SKILL.lime [--mapped] [--drop-caches] [--json FILE]

Every start is a process of its own, which opens the model, loads one skill and generates one token. Times are counted
from just before the process is created. For a cold start, the files that the process uses are dropped from the page
cache first; the table shows how much was then read from disk. Without --drop-caches, pages that other processes have
mapped stay in the cache. Linux only: it reads /proc.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.harness.rounds import Spread, machine
from benchmarks.harness.skill_copies import write_copies
from lime_edge import read_skill
from lime_edge.contract.model import read_contract
from lime_edge.runtime.model.directory import read_directory
from lime_edge.runtime.model.session import Graph, SessionSettings

from .command import numbers

_WORKER = Path(__file__).with_name("memory_worker.py")
_CACHES = Path("/proc/sys/vm/drop_caches")
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command()
@click.argument("exported", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("skill", type=_FILE)
@click.option("--loaded", default="1,100,1000", show_default=True, callback=numbers, help="Counts of loaded skills.")
@click.option("--starts", default=10, show_default=True, type=click.IntRange(1), help="Starts of each kind.")
@click.option("--threads", default=1, show_default=True, type=click.IntRange(1))
@click.option("--operators", default="auto", show_default=True, help="auto (installed library), none, or a path.")
@click.option("--mapped", is_flag=True, help="Run a copy of the model with memory-mapped weights, made beforehand.")
@click.option("--drop-caches", is_flag=True, help="Empty the machine's whole page cache before cold starts (as root).")
@click.option("--work", type=click.Path(path_type=Path), help="Folder that keeps the copies of the skill.")
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Also write the results to this JSON file.")
def main(exported: Path, skill: Path, loaded: list[int], starts: int, json_path: Path | None, **given: Any) -> None:
    """Measure memory and starts."""
    if drop := given["drop_caches"]:
        _writable(_CACHES)
    asked = {name: given[name] for name in ("threads", "operators", "mapped")}
    document: dict[str, Any] = {"benchmark": "memory", "machine": machine(), "settings": asked}
    settings: dict[str, Any] = {"model": str(exported), "counts": [], **asked, "mapped": None}
    with ExitStack() as stack:
        folder = given["work"] or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        skills = [str(path) for path in write_copies(skill, folder / "copies", max(loaded))]
        if given["mapped"]:
            settings["mapped"] = str(folder / "mapped")
            _start(settings | {"skills": skills[:1]})  # creates the mapped copy
        full = _start(settings | {"skills": skills, "counts": sorted(loaded)})
        document["memory"] = _memory(exported, skill, full)
        document["starts"] = _starts(settings | {"skills": skills[:1]}, full["files"], exported, starts, drop)
    document["settings"]["dropped"] = "the page cache" if drop else "the files that are used"
    if json_path is not None:
        json_path.write_text(json.dumps(document, indent=1) + "\n", "utf-8")


def _writable(path: Path) -> None:
    if not os.access(path, os.W_OK):
        raise click.UsageError(f"--drop-caches: {path} is not writable; run as root, or without this option")


def _start(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Run one measured process and return its figures."""
    given = json.dumps({**settings, "began": time.time()})
    done = subprocess.run([sys.executable, str(_WORKER), given], stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise click.ClickException("the measured process failed; its output is above")
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def _memory(exported: Path, skill: Path, answer: Mapping[str, Any]) -> dict[str, Any]:
    """Memory by number of loaded skills; prints the table."""
    own = _bytes(exported, skill)
    stage = answer["stages"]["Runtime.load"]
    shown = Table("skills", "in memory", "of it private", "for each skill", title="memory, MB", title_justify="left")
    shown.add_row("0, nothing answered", f"{stage['all'] / 1e6:.1f}", f"{stage['private'] / 1e6:.1f}", "")
    counts = {int(count): found for count, found in answer["loaded"].items()}
    first, rows = min(counts), []
    for count, found in counts.items():
        each = (found["private"] - counts[first]["private"]) / (count - first) if count > first else None
        ratio = "" if each is None else f"{each / 1e3:.0f} kB: {each / own:.2f} of its bytes in the bank"
        shown.add_row(f"{count:,}", f"{found['all'] / 1e6:.1f}", f"{found['private'] / 1e6:.1f}", ratio)
        rows.append({"skills": count, **found, "each": each, "ratio": each and each / own})
    Console().print(shown)
    return {"bytes_of_a_skill_in_the_bank": own, "loaded": rows}


def _bytes(exported: Path, skill: Path) -> int:
    """Bytes of a skill's vectors in the graph's bank."""
    contract = read_contract(exported)
    graph = Graph(read_directory(exported, verify=False), SessionSettings("cpu", 1, operators=None))
    return contract.table.pack(read_skill(skill).tensors).astype(graph.bank_dtype).nbytes


def _starts(
    settings: Mapping[str, Any], files: Sequence[str], exported: Path, count: int, drop: bool
) -> dict[str, Any]:
    """Times of cold and warm starts, which alternate; prints the table."""
    used = [*files, *settings["skills"], *(str(path) for path in exported.iterdir())]
    answers: dict[str, list[dict[str, Any]]] = {"cold": [], "warm": []}
    for _ in track(range(count), "starting", transient=True):
        _forget(used, drop)
        for how in answers:
            answers[how].append(_start(settings))
    shown = Table("until", "cold, ms", "quartiles", "warm, ms", "quartiles", title=f"{count} starts of each kind")
    found: dict[str, Any] = {}
    for stage in answers["cold"][0]["stages"]:
        spreads = {how: Spread.of([1e3 * one["stages"][stage]["seconds"] for one in answers[how]]) for how in answers}
        cells = [text for s in spreads.values() for text in (f"{s.median:.0f}", f"{s.low:.0f}..{s.high:.0f}")]
        shown.add_row(stage, *cells)
        found[stage] = {how: asdict(spread) for how, spread in spreads.items()}
    read = {how: float(np.median([one["read"] for one in answers[how]])) for how in answers}
    shown.add_row("read from disk", f"{read['cold'] / 1e6:.0f} MB", "", f"{read['warm'] / 1e6:.0f} MB", "")
    Console().print(shown)
    return {"until": found, "read": read, "count": count}


def _forget(files: Iterable[str], drop: bool) -> None:
    """Drop some files, or everything, from the page cache."""
    os.sync()
    if drop:
        _CACHES.write_text("3")
        return
    for file in files:
        try:
            descriptor = os.open(file, os.O_RDONLY)
        except OSError:
            continue
        try:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)


if __name__ == "__main__":
    main()
