"""Blocks of a document: claims judged by their limits, tables of paired rounds, replacement of the text."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.harness.page_blocks import NOTHING, blocks, fill
from benchmarks.harness.rounds import read
from tests.benchmarks.support.result_files import documents, rows


def test_claims_are_judged_at_every_context(tmp_path: Path) -> None:
    made = blocks([read(path) for path in documents(tmp_path)])
    assert rows(made["acceptance"]) == [
        ["decode, one skill / untouched", "<= 1.04", "2", "1.039 at 32, 1.041 at 256", "**missed**"],
        ["1,000 skills in the bank / 1", "<= 1.01", "2", "1.004 at 32", "met"],
        ["ORT-GenAI with LoRA / ours", ">= 1.8", "2", "1.900 at 256", "met"],  # the faster of two LoRAs
        ["PEFT LoRA / ours", ">= 5.0", "2", "4.900 at 256", "**missed**"],
    ]


def test_tables_have_a_column_for_every_context(tmp_path: Path) -> None:
    made = blocks([read(path) for path in documents(tmp_path)])
    assert "2 threads, 9, 9 rounds" in made["decode skill"]
    assert "| 32: ms | ratio (quartiles) | 256: ms | ratio (quartiles) |" in made["decode skill"]
    assert rows(made["decode skill"]) == [
        ["untouched", "", "5.00", "", "5.00", ""],
        ["one skill (native)", "untouched", "6.00", "1.039 (0.935..1.143)", "6.00", "1.041 (0.937..1.145)"],
    ]
    assert rows(made["roofline"]) == [
        ["1", "32", "one skill (native)", "111.5", "1.50", "204", "9.00", "12.00", "75 %"]
    ]
    assert rows(made["variants"]) == [["untouched", "the builder's"]]
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
