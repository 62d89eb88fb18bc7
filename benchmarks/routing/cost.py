"""What a choice costs, and what a second skill on a context that was read costs.

    python -m benchmarks.routing.cost MODEL SKILL [--threads N] [--rounds N] [--json FILE]

MODEL was exported with statistics; SKILL is a package with centroids. It is used as it is and with the activation
"response". All times are until the first token; pairs are taken one after the other in an order that changes. Nothing
that a pair has read is kept for the next one.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks.harness.rounds import machine
from lime_edge import Runtime, read_skill
from lime_edge.runtime.routing.chooser import Candidate, Chooser
from lime_edge.skills.package import write_skill
from lime_edge.skills.route_statistics import read_statistics

_WORDS = ["the", "list", "of", "files", "in", "this", "folder", "that", "changed", "last", "week", "and", "sizes"]


def text(tokens: int) -> str:
    """About so many tokens of text, each time other ones."""
    rng = np.random.default_rng(time.perf_counter_ns())
    return " ".join(rng.choice(_WORDS, max(1, tokens)))


def paired(sides: dict[str, Callable[[str], Any]], tokens: int, rounds: int) -> dict[str, list[float]]:
    """Seconds of each side, on the same text in each round."""
    found: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds + 1):
        asked, names = text(tokens), list(sides)
        for name in names if number % 2 else reversed(names):
            started = time.perf_counter()
            sides[name](asked)
            if number:  # the first round warms up
                found[name].append(time.perf_counter() - started)
    return found


def activated(package: Path, folder: Path, activation: Any) -> Path:
    """A copy of a package with another activation."""
    skill = read_skill(package)
    manifest = replace(skill.manifest, activation=activation, name=activation, golden=[])
    dtype: Any = skill.dtype.lower()
    return write_skill(folder / f"{activation}.lime", manifest, skill.tensors, dtype, skill.draft, skill.route).path


def choosing(model: Path, rounds: int) -> dict[str, float]:
    """Milliseconds of a choice among sets of four centroids."""
    statistics, _ = read_statistics(model / "route.safetensors")
    chooser, rng, found = Chooser(statistics), np.random.default_rng(0), {}
    for count in (10, 100, 1000):
        sets = [rng.standard_normal((4, statistics.width)).astype(np.float32) for _ in range(count)]
        many = tuple(Candidate(str(at), at, _route(statistics.layer, one), "text") for at, one in enumerate(sets))
        state = rng.standard_normal(statistics.width).astype(np.float32)
        chooser.choose(state, many)
        times = []
        for _ in range(20 * rounds):
            started = time.perf_counter()
            chooser.choose(state, many)
            times.append(time.perf_counter() - started)
        found[str(count)] = 1e3 * float(np.median(times))
    return found


def _route(layer: int, centroids: Any) -> Any:
    from lime_edge.skills.route import Route

    return Route(layer, "last", centroids)


@click.command()
@click.argument("model", type=click.Path(exists=True, path_type=Path))
@click.argument("package", metavar="SKILL", type=click.Path(exists=True, path_type=Path))
@click.option("--threads", default=1, show_default=True)
@click.option("--rounds", default=7, show_default=True)
@click.option("--json", "target", type=click.Path(path_type=Path))
def main(model: Path, package: Path, threads: int, rounds: int, target: Path | None) -> None:
    """Measure choices, pairs of a given and a chosen skill, many skills on one context, and a shadow."""
    document: dict[str, Any] = {"machine": machine(), "threads": threads, "choice_ms": choosing(model, rounds)}
    one: dict[str, Any] = {"max_new_tokens": 1, "speculate": False}
    with tempfile.TemporaryDirectory() as folder:
        for activation in ("response", "always"):
            runtime = Runtime.load(model, threads=threads, prefix_cache=0)
            runtime.load_skill(activated(package, Path(folder), activation))
            runtime._chooser._statistics = replace(runtime._chooser._statistics, threshold=-1e6)  # always chosen
            for tokens in (30, 100, 300):
                sides = {
                    "given": lambda asked: runtime.generate(asked, activation, **one),  # noqa: B023
                    "auto": lambda asked: runtime.generate(asked, "auto", **one),  # noqa: B023
                }
                found = paired(sides, tokens, rounds)
                ratio = np.median(np.array(found["auto"]) / np.array(found["given"]))
                document[f"auto_{activation}_{tokens}"] = {
                    "given_ms": 1e3 * float(np.median(found["given"])),
                    "auto_ms": 1e3 * float(np.median(found["auto"])),
                    "ratio": float(ratio),
                }
        document["context"] = _context(model, package, Path(folder), threads, rounds)
        document["shadow"] = _shadow(model, package, threads, rounds)
    for key, value in document.items():
        if key != "machine":
            print(key, json.dumps(value))
    if target is not None:
        target.write_text(json.dumps(document, indent=1) + "\n", "utf-8")


def _context(model: Path, package: Path, folder: Path, threads: int, rounds: int) -> dict[str, float]:
    """Reading 1,000 tokens, and the first token of other skills on them."""
    runtime = Runtime.load(model, threads=threads)
    path = activated(package, folder, "response")
    names = [f"skill {number}" for number in range(10)]
    for name in names:
        runtime.load_skill(path, name)
    reads, others = [], []
    for _ in range(max(2, rounds // 2)):
        started = time.perf_counter()
        with runtime.prefill(text(1000)) as context:
            reads.append(time.perf_counter() - started)
            for name in names:
                started = time.perf_counter()
                runtime.generate("Which?", name, context=context, max_new_tokens=1, speculate=False)
                others.append(time.perf_counter() - started)
    ratio = float(np.median(others) / np.median(reads))
    return {"read_ms": 1e3 * float(np.median(reads)), "skill_ms": 1e3 * float(np.median(others)), "ratio": ratio}


def _shadow(model: Path, package: Path, threads: int, rounds: int) -> dict[str, float]:
    """A hundred answers, of which one is compared, against a hundred of which none is."""
    runtimes = [Runtime.load(model, threads=threads, prefix_cache=0, shadow=share) for share in (0.0, 1.0)]
    for runtime in runtimes:
        runtime.load_skill(package, "skill")

    def side(runtime: Runtime) -> Callable[[str], Any]:
        return lambda asked: runtime.generate(asked, "skill", max_new_tokens=24)

    sides = {name: side(runtime) for name, runtime in zip(("without", "every"), runtimes, strict=True)}
    found = paired(sides, 40, rounds)
    ratio = float(np.median(np.array(found["every"]) / np.array(found["without"])))
    return {"every_answer": ratio, "of_a_hundredth": 1 + (ratio - 1) / 100}


if __name__ == "__main__":
    main()
