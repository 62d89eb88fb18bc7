"""What a skill costs: decode and prefill of an exported model against the builder's untouched graph.

    python benchmarks/cost.py EXPORTED SKILL.lime [-m default] [--threads 2] [--json FILE]

Paired and interleaved: every round runs one step of each variant; the ratio is the median over rounds
of (variant / untouched), its spread the quartiles.
"""

from __future__ import annotations

import json
import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt
import onnxruntime as ort
from rich.console import Console
from rich.table import Table

from lime_edge import backbone, read_skill
from lime_edge.contract import ModelContract
from lime_edge.exporters.builder import build_backbone

_WARM = 20  # rounds that do not count
Step = Callable[[], float]


@click.command()
@click.argument("exported", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("skill", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("-m", "--model", default=backbone.DEFAULT, show_default=True)
@click.option("--threads", default=2, show_default=True)
@click.option("--rounds", default=200, show_default=True, help="Decode rounds; prefill runs a tenth.")
@click.option("--json", "json_path", type=click.Path(path_type=Path))
def main(exported: Path, skill: Path, model: str, threads: int, rounds: int, json_path: Path | None) -> None:
    """Measure base and skill against the untouched graph."""
    head = _head_size(exported)
    contract = ModelContract.from_json((exported / "lime.json").read_text("utf-8"))
    row = contract.table.pack(read_skill(skill).tensors)
    fed = {"lime.bank": np.stack([np.zeros_like(row), row])}
    with tempfile.TemporaryDirectory() as scratch:
        precision: Any = contract.precision
        build_backbone(backbone.resolve(model), Path(scratch) / "plain", precision)
        ours, plain = _session(exported, threads), _session(Path(scratch) / "plain", threads)
        ids = np.array([[0]])
        variants: dict[str, tuple[ort.InferenceSession, dict[str, Any]]] = {
            "untouched": (plain, {}),
            "base (nothing fed)": (ours, {}),
            "one skill": (ours, fed | {"lime.skill_ids": ids + 1}),
        }
        figures = {}
        for what, tokens, count in (("decode at 64", 0, rounds), ("prefill of 256", 256, rounds // 10)):
            steps = {name: _stepper(session, head, extra, tokens) for name, (session, extra) in variants.items()}
            figures[what] = _paired(steps, count)
    _print(figures, contract.precision, threads)
    if json_path:
        json_path.write_text(json.dumps({"threads": threads, "cpu": _cpu(), "figures": figures}, indent=1), "utf-8")


def _head_size(directory: Path) -> int:
    """Size of an attention head; the graph's own inputs leave it open."""
    config = json.loads((directory / "genai_config.json").read_text("utf-8"))
    return int(config["model"]["decoder"]["head_size"])


def _session(directory: Path, threads: int) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    return ort.InferenceSession(str(directory / "model.onnx"), options, providers=["CPUExecutionProvider"])


def _stepper(session: ort.InferenceSession, head: int, extra: dict[str, Any], prefill: int, past: int = 64) -> Step:
    """A call that runs one cached step after `past` tokens, or a prefill, and says how long it took."""
    binding, capacity = session.io_binding(), max(prefill, past + 1)
    for value in session.get_inputs():
        if value.name.startswith("past_key_values"):
            held = ort.OrtValue.ortvalue_from_numpy(np.zeros((1, value.shape[1], capacity, head), np.float32))
            binding.bind_ortvalue_input(value.name, held)
            binding.bind_ortvalue_output(value.name.replace("past_key_values", "present"), held)
    for name, array in extra.items():
        binding.bind_ortvalue_input(name, ort.OrtValue.ortvalue_from_numpy(array))

    def run(ids: npt.NDArray[np.int64], total: int) -> float:
        binding.bind_cpu_input("input_ids", ids)
        binding.bind_cpu_input("attention_mask", np.ones((1, total), np.int64))
        binding.bind_output("logits", "cpu")
        began = time.perf_counter()
        session.run_with_iobinding(binding)
        return time.perf_counter() - began

    rng = np.random.default_rng(0)
    prompt = rng.integers(10, 40_000, (1, prefill or past))
    if prefill:
        return lambda: run(prompt, prefill)
    run(prompt, past)
    return lambda: run(np.array([[7]]), past + 1)


def _paired(steps: dict[str, Step], rounds: int) -> dict[str, dict[str, float]]:
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(min(_WARM, rounds) + rounds):
        for name, step in steps.items():
            times[name].append(step())
    reference = np.array(times["untouched"][-rounds:])
    found = {}
    for name, taken in times.items():
        ratios = np.array(taken[-rounds:]) / reference
        low, middle, high = np.percentile(ratios, [25, 50, 75])
        found[name] = {"ms": 1e3 * float(np.median(taken[-rounds:])), "ratio": middle, "low": low, "high": high}
    return found


def _print(figures: dict[str, dict[str, dict[str, float]]], precision: str, threads: int) -> None:
    table = Table("", "variant", "ms", "ratio", "quartiles", title=f"{precision}, {threads} threads, {_cpu()}")
    for what, variants in figures.items():
        for name, f in variants.items():
            table.add_row(what, name, f"{f['ms']:.2f}", f"{f['ratio']:.3f}", f"{f['low']:.3f}..{f['high']:.3f}")
    Console().print(table)


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.processor())


if __name__ == "__main__":
    main()
