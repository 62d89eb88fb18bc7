"""Sizes: the base install in a fresh environment, and a skill's file against files of other adapters.

    python -m benchmarks.speed.size [SKILL.lime...] [--parts install,adapters] [--keep DIR] [--json FILE]

`install` builds the wheel of this repository, installs it with its base dependencies in a new environment, and prints
the size of site-packages, the largest packages and the import time. It needs the network. `adapters` saves PEFT's
LoRA, IA3 and RoAd on the attention projections of the same backbone as safetensors, and compares them with the skills.
"""

from __future__ import annotations

import math
import shutil
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from safetensors import safe_open

from benchmarks.harness.rounds import machine, versions, write
from lime_edge import read_skill
from lime_edge.training import backbone

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = ROOT / "lime_edge" / "shipped" / "smollm2-135m" / "skills"
FORBIDDEN = ("torch", "transformers", "peft", "onnx")
PARTS = ("install", "adapters")
SHOWN = 12


@click.command()
@click.argument("skills", type=click.Path(exists=True, dir_okay=False, path_type=Path), nargs=-1)
@click.option("--parts", default=",".join(PARTS), show_default=True, help="Parts to measure.")
@click.option("-m", "--model", default=backbone.DEFAULT, show_default=True, help="The backbone of the adapters.")
@click.option("--keep", type=click.Path(path_type=Path), metavar="DIR", help="Create the environment here and keep it.")
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Also write the results to this JSON file.")
def main(skills: tuple[Path, ...], parts: str, model: str, keep: Path | None, json_path: Path | None) -> None:
    """Measure the sizes of the base install and of skills."""
    wanted = parts.split(",")
    if unknown := set(wanted) - set(PARTS):
        raise click.UsageError(f"no part {', '.join(sorted(unknown))}; expected some of {', '.join(PARTS)}")
    document: dict[str, Any] = {"benchmark": "size", "machine": machine()}
    document["machine"]["packages"] |= versions(("peft", "torch", "transformers"))
    if "adapters" in wanted:
        found = [*_skills(skills or sorted(SHIPPED.glob("*.lime"))), *_adapters(backbone.resolve(model))]
        document["adapters"] = found
        _print_adapters(found)
    if "install" in wanted:
        with tempfile.TemporaryDirectory() as temporary:
            document["install"] = install(keep or Path(temporary) / "venv", Path(temporary))
        _print_install(document["install"])
    write(json_path, document)


def install(home: Path, work: Path) -> dict[str, Any]:
    """Install the package into a new environment at `home` and measure it.

    Raises:
        click.ClickException: The base install contains a heavy library.
    """
    venv.create(home, with_pip=True)
    scripts = home / ("Scripts" if sys.platform == "win32" else "bin")
    python = str(scripts / "python")
    empty = _sizes(_site(python))
    pip = [python, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", "--no-deps", "--wheel-dir", str(work), str(_copy(work / "source"))], check=True)
    wheel = next(work.glob("lime_edge-*.whl"))
    subprocess.run([*pip, "install", str(wheel)], check=True)
    sizes = {name: size for name, size in _sizes(_site(python)).items() if name not in empty}
    if found := sorted(set(sizes) & set(FORBIDDEN)):
        raise click.ClickException(f"the base install contains {', '.join(found)}; expected none of these")
    return {
        "wheel": wheel.name,
        "wheel_bytes": wheel.stat().st_size,
        "bytes": sum(sizes.values()),
        "packages": dict(sorted(sizes.items(), key=lambda item: -item[1])[:SHOWN]),
        "import_seconds": {module: _import_seconds(python, module) for module in ("lime_edge", "lime_edge.runtime")},
    }


def _copy(target: Path) -> Path:
    """Copy the sources: setuptools leaves a build folder beside them, whose stale files end up in later wheels."""
    ignored = shutil.ignore_patterns("__pycache__", "*.so", "*.dylib", "*.dll")
    for folder in ("lime_edge", "exporters", "runtime"):
        shutil.copytree(ROOT / folder, target / folder, symlinks=True, ignore=ignored)
    for file in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / file, target)
    return target


def _site(python: str) -> Path:
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    return Path(subprocess.run([python, "-c", code], check=True, capture_output=True, text=True).stdout.strip())


def _sizes(site: Path) -> dict[str, int]:
    """Bytes of every entry in site-packages."""
    return {
        entry.name: sum(file.stat().st_size for file in [entry, *entry.rglob("*")] if file.is_file())
        for entry in site.iterdir()
    }


def _import_seconds(python: str, module: str) -> float:
    """Time of an import: an interpreter with it minus one without, each the best of three."""
    best = {code: float("inf") for code in ("pass", f"import {module}")}
    for _ in range(3):
        for code in best:
            start = time.perf_counter()
            subprocess.run([python, "-c", code], check=True, cwd=tempfile.gettempdir())
            best[code] = min(best[code], time.perf_counter() - start)
    return max(0.0, best[f"import {module}"] - best["pass"])


def _skills(paths: tuple[Path, ...] | list[Path]) -> Iterator[dict[str, Any]]:
    """Sizes of skill files as they are and with all vectors in float16."""
    for path in paths:
        skill = read_skill(path)
        values = sum(array.size for array in skill.tensors.values())
        header, stored = _stored(path)
        yield {
            "name": f"skill {skill.manifest.name}",
            "values": values,
            "dtype": stored,
            "bytes": path.stat().st_size,
            "float16_bytes": header + 2 * values,
        }


def _adapters(model: Path) -> Iterator[dict[str, Any]]:
    """Sizes of PEFT's adapters on the attention projections."""
    import peft
    import torch
    from transformers import AutoModelForCausalLM

    from lime_edge.method.config import ATTENTION
    from lime_edge.training.quiet import silence_libraries

    targets = list(ATTENTION)
    configs: dict[str, Any] = {
        "LoRA r=8": peft.LoraConfig(r=8, target_modules=targets),
        "LoRA r=1": peft.LoraConfig(r=1, target_modules=targets),
        "IA3": peft.IA3Config(target_modules=targets, feedforward_modules=[]),
        "RoAd 1": peft.RoadConfig(variant="road_1", target_modules=targets),
    }
    for name, config in configs.items():
        with silence_libraries():
            net: Any = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
        wrapped: Any = peft.get_peft_model(net, config)
        with tempfile.TemporaryDirectory() as scratch:
            wrapped.save_pretrained(scratch)
            path = Path(scratch) / "adapter_model.safetensors"
            header, stored = _stored(path)
            size = path.stat().st_size
        values = (size - header) // 4  # all float32
        yield {
            "name": f"PEFT {name}",
            "values": values,
            "dtype": stored,
            "bytes": size,
            "float16_bytes": header + 2 * values,
        }


def _stored(path: Path) -> tuple[int, str]:
    """Bytes of a safetensors file that are not values, and the type of most of its values."""
    with safe_open(path, framework="np") as file:
        slices = [file.get_slice(name) for name in file.keys()]  # noqa: SIM118 -- not a dict
        counts: dict[str, int] = {}
        for one in slices:
            counts[one.get_dtype()] = counts.get(one.get_dtype(), 0) + math.prod(one.get_shape())
    widths = {"F32": 4, "F16": 2, "BF16": 2, "I8": 1}
    held = sum(count * widths[dtype] for dtype, count in counts.items())
    return path.stat().st_size - held, max(counts, key=counts.__getitem__)


def _print_adapters(found: list[dict[str, Any]]) -> None:
    table = Table("adapter", "numbers", "stored as", "KB", "KB in F16", title="files", title_justify="left")
    for row in found:
        sizes = [f"{row[key] / 1e3:,.0f}" for key in ("bytes", "float16_bytes")]
        table.add_row(row["name"], f"{row['values']:,}", row["dtype"], *sizes)
    Console().print(table)


def _print_install(found: dict[str, Any]) -> None:
    table = Table("", "MB", title="base install", title_justify="left")
    table.add_row(found["wheel"], f"{found['wheel_bytes'] / 1e6:.2f}")
    table.add_row("site-packages, without pip", f"{found['bytes'] / 1e6:.2f}")
    for name, size in found["packages"].items():
        table.add_row(f"  {name}", f"{size / 1e6:.2f}")
    Console().print(table)
    for module, seconds in found["import_seconds"].items():
        click.echo(f"import {module:<18} {seconds:5.2f} s, best of 3")


if __name__ == "__main__":
    main()
