"""Results as JSON lines, one a run, written as they come: what is there already is not run again.

Knows nothing of what is run.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

Record = dict[str, Any]
RESULTS = Path(__file__).resolve().parents[1] / "results"


@dataclass(frozen=True)
class Lines:
    """A file of records; `keys` tell one run from another."""

    path: Path
    keys: tuple[str, ...]

    def read(self) -> list[Record]:
        """All records; a last line that was cut off while it was written is none."""
        text = self.path.read_text("utf-8") if self.path.is_file() else ""
        return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]

    def find(self, key: Mapping[str, Any]) -> Record | None:
        """The newest record of a run."""
        wanted = self.key(key)
        return next((record for record in reversed(self.read()) if self.key(record) == wanted), None)

    def add(self, record: Mapping[str, Any]) -> None:
        """Append a record; it is on the disk when this returns."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        whole = "".join(json.dumps(one) + "\n" for one in [*self.read(), record])
        beside = self.path.with_suffix(".part")
        with beside.open("w", encoding="utf-8") as file:
            file.write(whole)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(self.path)

    def key(self, record: Mapping[str, Any]) -> tuple[Any, ...]:
        return tuple(record.get(name) for name in self.keys)


def run_missing(
    lines: Lines, jobs: Iterable[Record], run: Callable[[Record], Mapping[str, Any]], minutes: float | None = None
) -> int:
    """Run the jobs that have no record yet, in order, until the time is up; a run once begun is finished.

    Args:
        lines: Where records go.
        jobs: What could be run: the keys of each.
        run: Makes the rest of a job's record.
        minutes: None: all of them.

    Returns:
        How many were run.
    """
    began, count = time.monotonic(), 0
    for job in jobs:
        if lines.find(job) is not None:
            continue
        if minutes is not None and time.monotonic() - began > 60 * minutes:
            break
        start = time.monotonic()
        record = {**job, **run(job), "seconds": round(time.monotonic() - start, 1)}
        lines.add(record)
        click.echo(json.dumps(record))
        count += 1
    return count
