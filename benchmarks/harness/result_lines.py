"""Results as JSON lines, one a run, written as each run finishes: an interrupted benchmark resumes where it stopped."""

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
    """A JSONL file of records; `keys` identify a run."""

    path: Path
    keys: tuple[str, ...]

    def read(self) -> list[Record]:
        """All records. An incomplete last line, left by a crash, is ignored."""
        text = self.path.read_text("utf-8") if self.path.is_file() else ""
        return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]

    def find(self, key: Mapping[str, Any]) -> Record | None:
        """The newest record of a run; None if it has none."""
        wanted = self.key(key)
        return next((record for record in reversed(self.read()) if self.key(record) == wanted), None)

    def add(self, record: Mapping[str, Any]) -> None:
        """Append a record durably: the file is replaced atomically and flushed to disk."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        whole = "".join(json.dumps(one) + "\n" for one in [*self.read(), record])
        beside = self.path.with_suffix(".part")
        with beside.open("w", encoding="utf-8") as file:
            file.write(whole)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(self.path)

    def key(self, record: Mapping[str, Any]) -> tuple[Any, ...]:
        """The values that identify a record's run."""
        return tuple(record.get(name) for name in self.keys)


def run_missing(
    lines: Lines, jobs: Iterable[Record], run: Callable[[Record], Mapping[str, Any]], minutes: float | None = None
) -> int:
    """Run the jobs without a record in order, until the time is up. A run that has started is always finished.

    Args:
        lines: The file of records.
        jobs: The identifying keys of every job.
        run: Runs a job and returns the rest of its record.
        minutes: Start no job after this long; None for no limit.

    Returns:
        The number of jobs that were run.
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
