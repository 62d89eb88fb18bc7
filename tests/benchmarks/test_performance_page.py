"""docs/performance.md: its tables and plots come from the files of the benchmarks, and each claim is judged."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from benchmarks.harness.page_blocks import NOTHING, blocks, fill
from benchmarks.harness.plots import DOCUMENT, main
from benchmarks.harness.rounds import Figure, Group, Report, Spread, read


def _spread(median: float) -> Spread:
    return Spread(median, 0.9 * median, 1.1 * median, 0.95 * median, 1.05 * median)


def _group(part: str, context: int, ratios: dict[str, dict[str, float]]) -> Group:
    figures = [Figure("untouched", _spread(5))]
    for name, others in ratios.items():
        figures.append(Figure(name, _spread(6), {other: _spread(ratio) for other, ratio in others.items()}))
    return Group(f"{part} at {context}", {"part": part, "context": context}, 9, figures)


def _documents(folder: Path) -> list[Path]:
    """Files of a made-up run."""
    report = Report("decode", {"threads": 2}, {"untouched": "the builder's", "untouched, greedily": "tokens [1]"})
    for context, ratio in ((32, 1.039), (256, 1.041)):
        report.groups.append(_group("skill", context, {"one skill (native)": {"untouched": ratio}}))
    report.groups.append(_group("bank", 32, {"one skill of 1,000": {"one skill of 1": 1.004}}))
    rivals = {
        "ORT-GenAI, no adapter": {"one skill (native)": 0.9},
        "ORT-GenAI, LoRA, switchable": {"one skill (native)": 2.5},
        "ORT-GenAI, LoRA, baked in, the builder's own int4": {"one skill (native)": 1.9},
        "PEFT, LoRA, float32": {"one skill (native)": 4.9},
        "PEFT, LoRA, bfloat16": {"one skill (native)": 6.0},
    }
    report.groups.append(_group("rivals", 256, rivals))
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


def _rows(block: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in block.splitlines() if line[:1] == "|"][2:]


def test_claims_are_judged_at_every_context(tmp_path: Path) -> None:
    made = blocks([read(path) for path in _documents(tmp_path)])
    assert _rows(made["acceptance"]) == [
        ["decode, one skill / untouched", "<= 1.04", "2", "1.039 at 32, 1.041 at 256", "**missed**"],
        ["1,000 skills in the bank / 1", "<= 1.01", "2", "1.004 at 32", "met"],
        ["ORT-GenAI with LoRA / ours", ">= 1.8", "2", "1.900 at 256", "met"],  # of two LoRAs the faster
        ["PEFT LoRA / ours", ">= 5.0", "2", "4.900 at 256", "**missed**"],
    ]


def test_tables_have_a_column_for_every_context(tmp_path: Path) -> None:
    made = blocks([read(path) for path in _documents(tmp_path)])
    assert "2 threads, 9, 9 rounds" in made["decode skill"]
    assert "| 32: ms | ratio (quartiles) | 256: ms | ratio (quartiles) |" in made["decode skill"]
    assert _rows(made["decode skill"]) == [
        ["untouched", "", "5.00", "", "5.00", ""],
        ["one skill (native)", "untouched", "6.00", "1.039 (0.935..1.143)", "6.00", "1.041 (0.937..1.145)"],
    ]
    assert _rows(made["roofline"]) == [
        ["1", "32", "one skill (native)", "111.5", "1.50", "204", "9.00", "12.00", "75 %"]
    ]
    assert _rows(made["variants"]) == [["untouched", "the builder's"]]
    assert made["machines"].count("\n- ") == 1


def test_filling_twice_changes_nothing_more() -> None:
    page = "a\n<!-- begin one -->\nold\n<!-- end one -->\nb\n<!-- begin two -->\n<!-- end two -->\n"
    filled = fill(page, {"one": "| new |\n"})
    assert "old" not in filled
    assert "| new |" in filled
    assert NOTHING in filled
    assert fill(filled, {"one": "| new |\n"}) == filled
    with pytest.raises(ValueError, match="no <!-- begin NAME --> for three"):
        fill(page, {"three": ""})


def test_the_page_has_a_place_for_everything(tmp_path: Path) -> None:
    """Every table that the benchmarks can make, and every plot that they draw."""
    page = tmp_path / "performance.md"
    page.write_text(DOCUMENT.read_text("utf-8"), "utf-8")
    words = [*map(str, _documents(tmp_path)), "--document", str(page)]
    drawn = []
    for _ in range(2):
        done = CliRunner().invoke(main, words, catch_exceptions=False)
        assert done.exit_code == 0, done.output
        drawn.append({path.name: path.read_bytes() for path in (tmp_path / "performance").iterdir()})
    assert drawn[0] == drawn[1]  # the same files, the same bytes
    assert drawn[0].keys() == {"decode.svg", "decode-rivals.svg", "roofline.svg"}
    shown = set(re.findall(r"\(performance/(.*?\.svg)\)", page.read_text("utf-8")))
    assert drawn[0].keys() <= shown
    assert "**missed**" in page.read_text("utf-8")


def test_the_other_benchmarks_tables() -> None:
    """Sizes, switching and memory have no rounds; their files are read all the same."""
    spread: dict[str, Any] = asdict(_spread(20))
    machine = {"cpu": "one", "cores": 2, "memory_gb": 8, "packages": {"numpy": "2"}, "load_before": 0.1}
    documents: list[dict[str, Any]] = [
        {
            "benchmark": "size",
            "machine": machine,
            "adapters": [{"name": "IA3", "values": 1234, "dtype": "F32", "bytes": 5000, "float16_bytes": 2600}],
            "install": {"wheel": "a.whl", "wheel_bytes": 1_000_000, "bytes": 2_000_000, "packages": {"numpy": 500_000}},
        },
        {
            "benchmark": "switch",
            "machine": machine,
            "figures": [
                {
                    "engine": "lime-edge",
                    "call": "use_skill",
                    "loaded": 1000,
                    "p50": 3.25,
                    "p90": 5,
                    "p99": 9,
                    "highest": 1500,
                }
            ],
        },
        {
            "benchmark": "memory",
            "machine": machine,
            "settings": {"threads": 1},
            "memory": {
                "loaded": [
                    {"skills": 1, "all": 2e8, "private": 1e8, "each": None, "ratio": None},
                    {"skills": 101, "all": 2.3e8, "private": 1.3e8, "each": 3e5, "ratio": 1.085},
                ]
            },
            "starts": {"until": {"first token": {"cold": spread, "warm": spread}}},
        },
    ]
    made = blocks(documents)
    assert _rows(made["size adapters"]) == [["IA3", "1,234", "F32", "5", "3"]]
    assert _rows(made["size install"])[-1] == ["numpy", "0.50"]
    assert _rows(made["switch"]) == [["lime-edge", "use_skill", "1,000", "3.2 us", "5.0 us", "9.0 us", "1.50 ms"]]
    assert _rows(made["memory"])[1][-1] == "300 KB, 1.08 of its bytes in the bank"
    assert _rows(made["starts"]) == [["first token", "20", "18..22", "20", "18..22"]]
    fill(DOCUMENT.read_text("utf-8"), made)  # all have a place
