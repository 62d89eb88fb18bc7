"""The benchmarks: their arithmetic, and that they run on a tiny model. Nothing depends on how long anything takes."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click
import gguf
import numpy as np
import onnx_ir as ir
import pytest
from click.testing import CliRunner
from gguf import GGUFReader

from benchmarks.engines import rival_files, rival_process
from benchmarks.engines.rival_process import Rival
from benchmarks.harness import rounds
from benchmarks.harness.rounds import Figure, Group, Report, Spread, Variant, measure
from benchmarks.speed.decode import main as decode
from benchmarks.speed.prefill import main as prefill
from benchmarks.speed.roofline import CACHE, LOGITS, ROW, SHARED, WEIGHTS, work_of
from tests.support.runtime_models import HEAD, HIDDEN, LAYERS, RANK, contract, exported, scratch, skill


def test_spread_of_few_values() -> None:
    spread = Spread.of([5, 1, 4, 2, 3])
    assert (spread.low, spread.median, spread.high) == (2, 3, 4)
    assert (spread.sure_low, spread.sure_high) == (1, 5)
    assert Spread.of([7]) == Spread(7, 7, 7, 7, 7)
    assert Spread.of([1, 3]).scaled(10) == Spread(20, 15, 25, 10, 30)
    with pytest.raises(ValueError, match="no values"):
        Spread.of([])


def test_the_median_is_within_its_bounds_as_often_as_promised() -> None:
    rng = np.random.default_rng(0)
    samples = [Spread.of(rng.exponential(size=200)) for _ in range(1000)]
    held = np.mean([one.sure_low <= np.log(2) <= one.sure_high for one in samples])
    assert 0.94 < held < 0.98
    wide = np.mean([one.sure_low <= np.log(2) * 1.3 <= one.sure_high for one in samples])
    assert wide < 0.5


def test_ratios_are_taken_within_rounds() -> None:
    times = {"a": np.array([1.0, 10, 100]), "b": np.array([10.0, 1, 100])}
    a, b = rounds.figures(times, {"b": ("a",)})
    assert a == Figure("a", Spread.of([1e3, 1e4, 1e5]))
    assert b.ratios["a"].median == 1  # of 10, 0.1 and 1
    assert (b.ratios["a"].low, b.ratios["a"].high) == (0.55, 5.5)


def test_every_variant_runs_once_a_round_in_changing_order() -> None:
    order: list[str] = []

    def variant(name: str, against: tuple[str, ...] = ()) -> Variant:
        def turn() -> float:
            order.append(name)
            return float(order.count(name))  # seconds: 1, 2, 3, ...

        return Variant(name, turn, against)

    group = measure("title", [variant("a"), variant("b", ("a",)), variant("c", ("a",))], 20, warm=5, context=7)
    rows = [order[at : at + 3] for at in range(0, len(order), 3)]
    assert len(rows) == 25
    assert all(sorted(row) == ["a", "b", "c"] for row in rows)
    assert len({tuple(row) for row in rows}) > 3
    assert group["a"].ms.median == 1e3 * np.median(np.arange(6, 26))  # the first five do not count
    assert group["b"].ratios["a"].median == 1
    assert (group.what, group.rounds) == ({"context": 7}, 20)


def test_a_group_of_strangers_or_twins_is_refused() -> None:
    one = Variant("a", lambda: 1.0, ("b",))
    with pytest.raises(ValueError, match="not among them"):
        measure("title", [one], 1)
    with pytest.raises(ValueError, match="'a', 'a'"):
        measure("title", [Variant("a", lambda: 1.0)] * 2, 1)


def test_a_report_comes_back_from_its_file(tmp_path: Path) -> None:
    report = Report("decode", {"threads": 1}, {"a": "what it is"})
    figure = Figure("a", Spread(1.23456789, 1, 2, 1, 2), {"b": Spread(0.5, 0.25, 0.75, 0.3, 0.6)})
    report.groups.append(Group("title", {"context": 32}, 9, [figure]))
    report.write(tmp_path / "new" / "file.json")
    document = rounds.read(tmp_path / "new" / "file.json")
    assert document["groups"] == [
        Group("title", {"context": 32}, 9, [Figure("a", Spread(1.2346, 1, 2, 1, 2), figure.ratios)])
    ]
    assert document["notes"] == report.notes
    assert {"cpu", "cores", "packages", "load_before"} <= document["machine"].keys()
    assert "load_after" in document
    report.write(None)  # no file asked for


def test_rounds_after_another_opening_are_pooled_with_those_before() -> None:
    def group(part: str, *ratios: float) -> Group:
        turns = {"a": iter([1.0] * len(ratios)), "b": iter(ratios)}
        variants = [Variant("a", lambda: next(turns["a"])), Variant("b", lambda: next(turns["b"]), ("a",))]
        return measure("title", variants, len(ratios), warm=0, part=part)

    report = Report("decode", {})
    for found in (group("skill", 1, 2), group("rivals", 9), group("skill", 3, 4, 5)):
        report.add(found)
    first, second = report.groups
    assert (first.what, first.rounds) == ({"part": "skill"}, 5)
    assert first["b"].ratios["a"] == Spread.of([1, 2, 3, 4, 5])
    assert second["b"].ratios["a"].median == 9


def _ran(command: click.Command, tmp_path: Path, **options: Any) -> dict[str, Any]:
    """Run a benchmark on the tiny model as its command line would; the JSON that it wrote."""
    model = exported(precision="fp32")
    files = [str(skill(model, one)) for one in ("one", "other")]
    options |= {"model": scratch() / "llama", "json": tmp_path / "out.json", "work": tmp_path / "work"}
    given = [str(model), *files, *(f"--{name}={value}" for name, value in options.items())]
    done = CliRunner().invoke(command, given, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    found: dict[str, Any] = json.loads((tmp_path / "out.json").read_text("utf-8"))
    return found


def _variants(group: dict[str, Any]) -> list[str]:
    return [figure["name"] for figure in group["figures"]]


def test_decode_runs_on_a_tiny_model(tmp_path: Path) -> None:
    sizes = {"contexts": "8", "rounds": 2, "steps": 1, "rows": 3, "banks": "1,5", "answers": 2, "tokens": 4}
    found = _ran(decode, tmp_path, operators="none", openings=2, **sizes)
    groups = {group["what"]["part"]: group for group in found["groups"]}
    assert list(groups) == ["skill", "bank", "rows", "runtime"]
    assert _variants(groups["skill"]) == [
        "untouched",
        "base, nothing fed (function)",
        "base, skill 0 fed (function)",
        "one skill (function)",
    ]
    assert _variants(groups["bank"]) == ["one skill of 1", "one skill of 5", "another of 5 every step"]
    assert _variants(groups["rows"]) == [
        "untouched",
        "base (function)",
        "one skill (function)",
        "3 skills (function)",
    ]
    assert list(groups["rows"]["figures"][-1]["ratios"]) == ["untouched", "one skill (function)"]
    assert _variants(groups["runtime"])[1:] == ["Runtime, base (function)", "Runtime, one skill (function)"]
    assert groups["runtime"]["rounds"] == 4  # two in each opening
    assert all(group["what"]["context"] == 8 for group in groups.values())
    assert found["settings"] == {
        "threads": 1,
        "spin": None,
        "openings": 2,
        "rounds": 2,
        "steps": 1,
        "rows": 3,
        "banks": [1, 5],
        "answers": 2,
        "tokens": 4,
    }


def test_prefill_runs_on_a_tiny_model_with_rivals(tmp_path: Path) -> None:
    found = _ran(prefill, tmp_path, operators="none", lengths="5", rounds=1, bank=2, rivals="genai,peft")
    own, others = found["groups"]
    assert _variants(own) == [
        "untouched",
        "base, nothing fed (function)",
        "base, skill 0 fed (function)",
        "one skill (function)",
        "one skill of 2 (function)",
        "one skill, last logits only (function)",
        "Runtime, one skill (function)",
    ]
    assert _variants(others) == [
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
    # fp32 throughout, so all engines answer alike: with the LoRA, and without it.
    assert notes["untouched, greedily"] == notes["PEFT, no adapter, float32, greedily"]
    for form in ("baked in", "switchable"):
        assert notes[f"ORT-GenAI, LoRA, {form}, greedily"] == notes["PEFT, LoRA, float32, greedily"]
    assert notes["ORT-GenAI, LoRA, switchable, greedily"] != notes["ORT-GenAI, no adapter, greedily"]


def test_a_skill_that_does_nothing_is_not_measured(tmp_path: Path) -> None:
    model = exported(precision="fp32")
    nothing = skill(model, "nothing", size=0.0)
    words = ["--operators", "none", "-m", str(scratch() / "llama"), "--work", str(tmp_path)]
    done = CliRunner().invoke(decode, [str(model), str(nothing), *words])
    assert done.exit_code == 1
    assert "nothing (function) changes no logit" in done.output


def test_what_cannot_be_compared_is_said(tmp_path: Path) -> None:
    model = exported(precision="fp32")
    given = [str(model), str(skill(model, "one"))]
    for words, message in (
        (["--rivals", "vllm"], "no rival vllm; expected some of genai, llama, peft"),
        (["--rivals", "llama"], "needs --gguf"),
        (["--parts", "skills"], "no part skills"),
        (["--contexts", "8,x"], "expected whole numbers"),
    ):
        done = CliRunner().invoke(decode, [*given, *words])
        assert done.exit_code == 2
        assert message in " ".join(done.output.replace("│", "").split())


def test_a_rival_that_does_not_start_names_its_package(tmp_path: Path) -> None:
    with pytest.raises(click.ClickException, match=r"rival 'llama' does not run[\s\S]*pip install llama-cpp-python"):
        Rival("llama", sys.executable, {"model": "nowhere"}, tmp_path / "log")


class _Still:
    """A rival whose LoRA does nothing."""

    variants = {"no adapter": "", "LoRA": ""}  # noqa: RUF012 -- a test's double

    def ask(self, do: str, **_: Any) -> dict[str, Any]:
        return {"tokens": [1], "logits": [0.5, 0.25]}

    titled = staticmethod(lambda variant: f"still, {variant}")


def test_a_lora_that_does_nothing_is_found() -> None:
    still: Any = _Still()
    with pytest.raises(click.ClickException, match="still, LoRA gives the logits of the model without an adapter"):
        rival_process.check(still, [1, 2], 1)


def test_the_lora_for_llama_cpp(tmp_path: Path) -> None:
    """Names and shapes that llama.cpp reads, and the rotary order that transformers undoes for its own GGUF files."""
    from safetensors.numpy import load_file
    from transformers.modeling_gguf_pytorch_utils import LlamaTensorProcessor

    exported()  # makes the model
    files = rival_files.Files(tmp_path, scratch() / "llama", tmp_path, "fp32", tmp_path / "model.gguf")
    settings = files.settings("llama")
    reader = GGUFReader(settings["adapter"])
    assert reader.fields["general.type"].contents() == "adapter"
    assert reader.fields["adapter.type"].contents() == "lora"
    assert reader.fields["adapter.lora.alpha"].contents() == rival_files.ALPHA
    written = {tensor.name: tensor.data for tensor in reader.tensors}
    assert len(written) == LAYERS * 4 * 2
    source = load_file(tmp_path / "lora" / "adapter_model.safetensors")
    processor: Any = LlamaTensorProcessor()  # type: ignore[no-untyped-call]
    prefix = "base_model.model.model.layers.1.self_attn"
    for ours, theirs, heads in (("attn_q", "q_proj", 4), ("attn_k", "k_proj", 2)):
        b = written[f"blk.1.{ours}.weight.lora_b"]
        assert b.shape == (heads * HEAD, rival_files.RANK)
        undone = processor._reverse_permute_weights(b, heads, heads)
        np.testing.assert_array_equal(undone, source[f"{prefix}.{theirs}.lora_B.weight"])
    np.testing.assert_array_equal(written["blk.1.attn_output.weight.lora_a"], source[f"{prefix}.o_proj.lora_A.weight"])
    assert gguf.Keys.General.ARCHITECTURE in reader.fields


def test_the_work_of_a_step() -> None:
    """Counted by hand for the tiny model: two layers, H = 64, F = 96, q, k, v, o, and a tied head of 300 tokens."""
    model = exported(precision="fp32")
    graph = ir.load(model / "model.onnx")
    plain = work_of(graph, contract(model), HEAD, context=10, rows=2)
    matrices = LAYERS * (HIDDEN * (64 + 32 + 32 + 64) + 3 * HIDDEN * 96) + HIDDEN * 300
    norms = (2 * LAYERS + 1) * HIDDEN
    keys = LAYERS * 2 * (2 * 10 * 2 * HEAD)
    assert plain.bytes == {WEIGHTS: 4 * (matrices + norms), CACHE: 4 * keys, LOGITS: 4 * 2 * 300}
    assert plain.byte_operations == 0
    assert plain.float_operations == 2 * 2 * matrices + LAYERS * 4 * 2 * 4 * 10 * HEAD
    both = work_of(graph, contract(model), HEAD, context=10, rows=2, skills=[3, 3])
    shared = LAYERS * RANK * (2 * (64 + 64) + 64 + 96)  # A and B of q, o and up
    assert both.bytes[SHARED] - plain.bytes.get(SHARED, 0) == 4 * shared
    row = LAYERS * (2 * 3 * 64 + 96)  # three kinds as wide as the output of q and o, the gain of up
    assert both.bytes[ROW] == 2 * 3 * 4 * row  # two skills of three experts
    one = work_of(graph, contract(model), HEAD, context=10, rows=1, skills=[1])
    assert one.bytes[SHARED] == 4 * LAYERS * RANK * 2 * (64 + 64)  # nothing asks for up's
    assert both.bytes[WEIGHTS] == plain.bytes[WEIGHTS]
