"""The benchmark of prefill on a tiny model, with the engines that the tests can run."""

from __future__ import annotations

from pathlib import Path

from benchmarks.speed.prefill import main as prefill
from tests.benchmarks.support.speed_runs import compared, variants


def test_prefill_runs_on_a_tiny_model_with_rivals(tmp_path: Path) -> None:
    found = compared(prefill, tmp_path, operators="none", lengths="5", rounds=1, bank=2, rivals="genai,peft")
    own, others = found["groups"]
    assert variants(own) == [
        "untouched",
        "base, nothing fed (function)",
        "base, skill 0 fed (function)",
        "one skill (function)",
        "one skill of 2 (function)",
        "one skill, last logits only (function)",
        "Runtime, one skill (function)",
    ]
    assert variants(others) == [
        "one skill, last logits only (function)",
        "ORT-GenAI, no adapter",
        "ORT-GenAI, LoRA, baked in",
        "ORT-GenAI, LoRA, switchable",
        "PEFT, no adapter, float32",
        "PEFT, LoRA, float32",
        "PEFT, no adapter, bfloat16",
        "PEFT, LoRA, bfloat16",
    ]
    notes = found["notes"]
    # In fp32 all engines give the same answers, with the LoRA and without it.
    assert notes["untouched, greedily"] == notes["PEFT, no adapter, float32, greedily"]
    for form in ("baked in", "switchable"):
        assert notes[f"ORT-GenAI, LoRA, {form}, greedily"] == notes["PEFT, LoRA, float32, greedily"]
    assert notes["ORT-GenAI, LoRA, switchable, greedily"] != notes["ORT-GenAI, no adapter, greedily"]
