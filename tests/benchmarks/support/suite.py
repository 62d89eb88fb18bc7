"""The suite of text tasks, with a few short rows each."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from benchmarks.multitask.data import TASKS, Budget
from tests.support.tiny_training import scratch, write_rows

BUDGET = Budget(steps=4, batch=6, max_length=200, test_rows=3)


@cache
def suite() -> Path:
    """Write all tasks of the suite once; returns their folder."""
    for category, names in TASKS.items():
        for name in names:
            for split, count in (("train", 8), ("valid", 3), ("test", 4)):
                rows: list[dict[str, Any]] = []
                for i in range(count):
                    prompt, answer = f"{name} {split} {i}" + "x" * (i % 4), ("yes", "no")[i % 2]
                    free = name in ("stsb", "gsm8k", "math_problems")
                    rows.append({"prompt": prompt, "answer": str(i) if free else answer})
                    rows[-1]["choices"] = None if free else ["yes", "no"]
                write_rows(scratch() / "suite" / category / name / f"{split}.jsonl", rows)
    return scratch() / "suite"
