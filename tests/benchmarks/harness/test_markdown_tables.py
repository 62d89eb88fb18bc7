"""Markdown tables of the benchmarks without paired rounds."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from benchmarks.harness.page_blocks import blocks, fill
from benchmarks.harness.plots import DOCUMENT
from tests.benchmarks.support.result_files import rows, spread


def test_the_other_benchmarks_tables() -> None:
    """Sizes, switching and memory have no rounds, but their files fill blocks, too."""
    times: dict[str, Any] = asdict(spread(20))
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
            "starts": {"until": {"first token": {"cold": times, "warm": times}}},
        },
    ]
    made = blocks(documents)
    assert rows(made["size adapters"]) == [["IA3", "1,234", "F32", "5", "3"]]
    assert rows(made["size install"])[-1] == ["numpy", "0.50"]
    assert rows(made["switch"]) == [["lime-edge", "use_skill", "1,000", "3.2 us", "5.0 us", "9.0 us", "1.50 ms"]]
    assert rows(made["memory"])[1][-1] == "300 KB, 1.08 of its bytes in the bank"
    assert rows(made["starts"]) == [["first token", "20", "18..22", "20", "18..22"]]
    fill(DOCUMENT.read_text("utf-8"), made)  # raises if a block has no place
