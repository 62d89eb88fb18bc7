"""Made-up result files of the benchmarks, and the rows of a Markdown table."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.harness.rounds import Figure, Group, Report, Spread


def spread(median: float) -> Spread:
    """Quartiles 10 % and bounds 5 % from the median."""
    return Spread(median, 0.9 * median, 1.1 * median, 0.95 * median, 1.05 * median)


def group(part: str, context: int, ratios: dict[str, dict[str, float]]) -> Group:
    """A group of "untouched" and of variants with these ratios to others."""
    figures = [Figure("untouched", spread(5))]
    for name, others in ratios.items():
        figures.append(Figure(name, spread(6), {other: spread(ratio) for other, ratio in others.items()}))
    return Group(f"{part} at {context}", {"part": part, "context": context}, 9, figures)


def documents(folder: Path) -> list[Path]:
    """Write the result files of a made-up run."""
    report = Report("decode", {"threads": 2}, {"untouched": "the builder's", "untouched, greedily": "tokens [1]"})
    for context, ratio in ((32, 1.039), (256, 1.041)):
        report.groups.append(group("skill", context, {"one skill (native)": {"untouched": ratio}}))
    report.groups.append(group("bank", 32, {"one skill of 1,000": {"one skill of 1": 1.004}}))
    rivals = {
        "ORT-GenAI, no adapter": {"one skill (native)": 0.9},
        "ORT-GenAI, LoRA, switchable": {"one skill (native)": 2.5},
        "ORT-GenAI, LoRA, baked in, the builder's own int4": {"one skill (native)": 1.9},
        "PEFT, LoRA, float32": {"one skill (native)": 4.9},
        "PEFT, LoRA, bfloat16": {"one skill (native)": 6.0},
    }
    report.groups.append(group("rivals", 256, rivals))
    report.write(folder / "decode-2.json")
    roofline = {
        "benchmark": "roofline",
        "settings": {"threads": 1},
        "machine": report.machine,
        "limits": {"read": {"118": 12.5}, "bytes": 400, "floats": 90},
        "lines": [
            {
                "variant": "one skill (native)",
                "context": 32,
                "rows": 1,
                "bytes": {"weights": 110_000_000, "shared adapter": 1_000_000, "skill's rows": 500_000},
                "byte_operations": 200_000_000,
                "float_operations": 4_000_000,
                "reading": 0.009,
                "computing": 0.001,
                "bound": 0.009,
                "share": 0.75,
                "taken": 0.012,
            }
        ],
    }
    (folder / "roofline-1.json").write_text(json.dumps(roofline), "utf-8")
    return [folder / "decode-2.json", folder / "roofline-1.json"]


def rows(block: str) -> list[list[str]]:
    """Cells of a Markdown table without its header."""
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in block.splitlines() if line[:1] == "|"][2:]
