"""Fuzzes the package reader and a live runtime with mutated packages.

    python -m tests.tools.fuzz --reader 200000 --runtime 20000 [--seconds N] [--seed N] [--json FILE]

Checked for every input: no exception but LimeError; a time limit (else the process ends with a traceback); memory of
Python and numpy (tracemalloc) of at most twice the file plus a constant; and no package accepted that
tests/support/verdict.py rejects. The skills that the runtime loaded before must keep their answers, which is checked
repeatedly. The first finding stops the run, and its file is kept. tests/tools/fuzz_guided.py makes the same checks on
inputs from a coverage-guided fuzzer."""

from __future__ import annotations

import faulthandler
import json
import resource
import signal
import sys
import tempfile
import time
import tracemalloc
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random
from typing import Any, Self

import click

from lime_edge.errors import LimeError
from lime_edge.runtime import Runtime
from lime_edge.skills.draft_table import DraftTable
from lime_edge.skills.interface import AnswerForm, Interface
from lime_edge.skills.package import Skill, read_skill, write_skill
from tests.support.faults.malformed import MODULES, draft_table, manifest, old_manifest, route, valid_package, vectors
from tests.support.faults.mutants import mutant
from tests.support.verdict import wrongly_accepted

SECONDS = 10.0  # processor time for one input
CONSTANT = 2 * 2**20  # bytes allowed in addition to twice the file
OFTEN = 250  # mutants between two checks of the runtime's answers
_LONGEST = 40_000  # characters of a message


class FindingError(Exception):
    """A violated guarantee."""


@dataclass
class Tally:
    """Counts and measurements over all inputs."""

    inputs: int = 0
    taken: int = 0
    seconds: float = 0.0  # processor time, like all times here
    slowest: float = 0.0  # of one input
    growth: int = 0  # the largest peak over twice the file, bytes
    refused: Counter[str] = field(default_factory=Counter)  # by class of error

    def report(self) -> dict[str, Any]:
        rate = self.inputs / self.seconds if self.seconds else 0.0
        return asdict(self) | {"refused": dict(self.refused), "a second": round(rate)}


class Harness:
    """Makes the same checks on one input after another. A context manager that ends inputs which run too long.

    Args:
        folder: Folder for the file of the current input.
        memory: Whether to measure memory, which makes a run three times as slow.
    """

    def __init__(self, folder: Path, memory: bool = True) -> None:
        self.path, self.memory, self.tally = folder / "input.lime", memory, Tally()

    def __enter__(self) -> Self:
        # Print a traceback, then let SIGPROF end the process, even inside a C extension.
        faulthandler.register(signal.SIGPROF, chain=True)
        if self.memory:
            tracemalloc.start()
        return self

    def __exit__(self, *error: object) -> None:
        faulthandler.unregister(signal.SIGPROF)
        if self.memory:
            tracemalloc.stop()

    def judge(self, data: bytes) -> Skill | None:
        """Read one input.

        Raises:
            FindingError: A check failed.
        """
        self.path.write_bytes(data)
        found: Skill | None = self.watched(len(data), lambda: read_skill(self.path))
        return found

    def watched(self, size: int, load: Any) -> Any:
        """Call `load` under all checks; returns its result, or None if it raises LimeError."""
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        if self.memory:
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
        started, found = time.process_time(), None
        try:
            found = load()
        except LimeError as error:
            self._refused(error)
        except Exception as error:
            raise FindingError(f"{type(error).__name__} escapes") from error
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
        self._count(time.process_time() - started, found is not None)
        if self.memory:
            self._weigh(tracemalloc.get_traced_memory()[1] - before, size)
        if isinstance(found, Skill):
            self.check(found)
        return found

    def check(self, skill: Skill) -> None:
        """Check an accepted skill with the independent verdict."""
        if faults := wrongly_accepted(self.path, skill.name, skill.digest, skill.tensors):
            raise FindingError(f"accepted, but {faults}")

    def _refused(self, error: LimeError) -> None:
        self.tally.refused[type(error).__name__] += 1
        if len(str(error)) > _LONGEST or not str(error).replace("\n", "").isprintable():
            raise FindingError("the message is too long or contains control characters")

    def _count(self, seconds: float, taken: bool) -> None:
        self.tally.inputs += 1
        self.tally.taken += taken
        self.tally.slowest = max(self.tally.slowest, seconds)

    def _weigh(self, peak: int, size: int) -> None:
        self.tally.growth = max(self.tally.growth, peak - 2 * size)
        if peak > 2 * size + CONSTANT:
            raise FindingError(f"{peak} bytes of memory for a file of {size}")


def seeds(folder: Path) -> list[bytes]:
    """Valid packages of every form: both formats, all forms of answers, int8 and F16, one and two experts, a prefix."""
    one = manifest(routing=manifest().routing.__class__(experts=1), interface=Interface(), golden=[], metrics=[])
    schema, regex = (
        manifest(interface=Interface(answers=answers))
        for answers in (AnswerForm("schema", '{"b":{"type":["integer"]},"a":1}'), AnswerForm("regex", r"\d+"))
    )
    made: list[tuple[Any, ...]] = [
        (one, {"prefix.embed_tokens": vectors(("gain",), experts=1)[f"gain.{MODULES[0]}"]}, "i8"),
        (old_manifest(), vectors(), "f16"),
        (old_manifest(), vectors(), "i8"),
        (schema, vectors(("gain",)), "i8", DraftTable.build([range(9)] * 3, order=6)),
        (regex, vectors(("gain",)), "f16", draft_table(), route()),
        (manifest(), vectors(("expert", "gain", "shift", "rank")), "i8"),
        (one, vectors(("gain",), experts=1), "i8"),
        (one, vectors(("rank",), experts=1), "f16"),
    ]
    written = [write_skill(folder / "seed.lime", *one_of).path.read_bytes() for one_of in made]
    return [valid_package(), *written]


def fuzz_reader(count: int, seed: int, folder: Path, found: Sequence[bytes] = (), seconds: float = 1e9) -> Tally:
    """Read up to `count` mutants of valid packages within `seconds`.

    Raises:
        FindingError: Names the seed and number of the input, whose file stays in the folder.
    """
    sources = [*seeds(folder), *found]
    started, end = time.process_time(), time.monotonic() + seconds
    with Harness(folder) as harness:
        for number in range(count):
            if time.monotonic() > end:
                break
            try:
                harness.judge(mutant(Random(f"{seed}/{number}"), sources))
            except FindingError as error:
                raise FindingError(f"input {seed}/{number}, {harness.path}: {error}") from error
    harness.tally.seconds = time.process_time() - started
    return harness.tally


def fuzz_runtime(
    count: int, seed: int, folder: Path, runtime: Runtime, packages: Sequence[Path], seconds: float = 1e9
) -> Tally:
    """Load mutants of skills of the runtime's own model, half of them as updates of a loaded skill.

    Args:
        runtime: Has all `packages` loaded under their own names, the first one active.

    Raises:
        FindingError: Names the seed and number of the input, whose file stays in the folder.
    """
    sources, wanted = [path.read_bytes() for path in packages], _state(runtime)
    started, end = time.process_time(), time.monotonic() + seconds
    with Harness(folder, memory=False) as harness:
        for number in range(count):
            if time.monotonic() > end:
                break
            data = mutant(Random(f"{seed}/{number}"), sources)
            try:
                loaded = _load(harness, runtime, data, packages[0] if number % 2 else None)
                if (loaded and number % 8 == 0) or number % OFTEN == 0:
                    _same(_state(runtime), wanted)
            except FindingError as error:
                raise FindingError(f"input {seed}/{number}, {harness.path}: {error}") from error
    _same(_state(runtime), wanted)
    harness.tally.seconds = time.process_time() - started
    return harness.tally


def _load(harness: Harness, runtime: Runtime, data: bytes, update: Path | None) -> bool:
    """Load a mutant as an update or under a new name, then undo that; returns whether it was accepted."""
    name = "mutant" if update is None else update.stem
    harness.path.write_bytes(data)
    if harness.watched(len(data), lambda: runtime.load_skill(harness.path, name, replace=True)) is None:
        return False
    harness.check(read_skill(harness.path))
    if update is None:
        runtime.unload_skill(name)
    else:
        runtime.load_skill(update, replace=True)
    return True


def _state(runtime: Runtime) -> Any:
    """The loaded skills with their answers and bit-exact scores."""
    infos = [(info.name, info.digest, info.path) for info in runtime.skills()]
    names: list[Any] = [None, *(info.name for info in runtime.skills())]
    specs = [*names, dict.fromkeys(names[1:], 0.5)]
    answers = [runtime.generate("Hello", spec, max_new_tokens=6).token_ids for spec in specs]
    scores = [runtime.choose("Hello", ["yes", "no"], spec).scores for spec in specs]
    return infos, runtime.active_skill, runtime.generate("Hello", max_new_tokens=6).token_ids, answers, scores


def _same(found: Any, wanted: Any) -> None:
    if found != wanted:
        raise FindingError(f"the state of the runtime changed: {found}; expected {wanted}")


def live_runtime() -> tuple[Runtime, list[Path]]:
    """A runtime with a tiny model and two skills."""
    from tests.support.runtime_models import exported, skill

    golden = {
        "prompt_ids": [1, 2],
        "answer_ids": [3],
        "top_ids": [3, 4],
        "skill_logits": [2.5, 1],
        "base_logits": [1, 2],
    }
    directory = exported()
    interface = manifest().interface
    packages = [
        skill(directory, "legal", golden=[golden], description="é", interface=interface, made=manifest().made),
        skill(directory, "brief"),
    ]
    legal = read_skill(packages[0])
    write_skill(packages[0], legal.manifest, legal.tensors, "f16", draft_table(), route())
    runtime = Runtime.load(directory, threads=1)
    for path in packages:
        runtime.load_skill(path)
    runtime.use_skill("legal")
    return runtime, packages


@click.command()
@click.option("--reader", default=100_000, show_default=True, help="Inputs for the reader.")
@click.option("--runtime", "live", default=20_000, show_default=True, help="Inputs for load_skill.")
@click.option("--seconds", default=1e9, help="Time limit for each of the two runs.")
@click.option("--seed", default=0, show_default=True)
@click.option(
    "--package",
    "packages",
    multiple=True,
    type=click.Path(exists=True, path_type=Path),
    help="An additional package to mutate.",
)
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Also write the results to this file.")
def main(reader: int, live: int, seconds: float, seed: int, packages: tuple[Path, ...], json_path: Path | None) -> None:
    """Fuzz the reader and the runtime."""
    folder = Path(tempfile.mkdtemp(prefix="lime-fuzz-"))
    report: dict[str, Any] = {"seed": seed}
    if reader:
        found = [path.read_bytes() for path in packages]
        report["reader"] = _shown("reader", fuzz_reader(reader, seed, folder, found, seconds))
    if live:
        report["runtime"] = _shown("runtime", fuzz_runtime(live, seed, folder, *live_runtime(), seconds))
    if json_path is not None:
        json_path.write_text(json.dumps(report, indent=1) + "\n", "utf-8")


def _shown(what: str, tally: Tally) -> Any:
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # bytes, on Linux
    report = tally.report() | {"resident": resident}
    click.echo(f"{what}: {json.dumps(report)}")
    return report


if __name__ == "__main__":
    sys.exit(main())
