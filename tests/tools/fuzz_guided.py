"""Fuzzes the package reader with atheris, guided by coverage: `pip install 'lime-edge[fuzz]'` (Linux).

    python -m tests.tools.fuzz_guided [--runs 100000] [--seconds 600] [--corpus FOLDER]

The checks are those of tests/tools/fuzz.py, except that libFuzzer limits the memory of the whole process. After the
mutation by atheris, three of four inputs get a valid length and digest. Inputs that reach new code stay in FOLDER."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from random import Random

import atheris
import click

with atheris.instrument_imports(include=["lime_edge"]):
    import lime_edge.skills.package  # noqa: F401  # instruments all that it imports

from tests.support.faults.malformed import framed
from tests.support.faults.mutants import apart, sealed
from tests.tools.corpus import CORPUS
from tests.tools.fuzz import Harness, seeds

MEGABYTES = 1024  # memory limit of the whole process
SECONDS = 10  # time limit for one input


def repaired(data: bytes, limit: int, seed: int) -> bytes:
    """Mutate the input with libFuzzer, then repair length and digest of most inputs."""
    random = Random(seed)
    if random.random() < 0.3:
        header, body = apart(data)
        data = framed(atheris.Mutate(header, max(1, limit - len(body) - 8)), body)
    else:
        data = atheris.Mutate(data, limit)
    return sealed(data)[:limit] if random.random() < 0.75 else data


@click.command()
@click.option("--runs", default=100_000, show_default=True)
@click.option("--seconds", default=600, show_default=True, help="Time limit.")
@click.option(
    "--corpus", type=click.Path(path_type=Path), help="Folder of inputs to start from; new ones are kept there."
)
def main(runs: int, seconds: int, corpus: Path | None) -> None:
    """Fuzz the reader, guided by coverage."""
    folder = corpus or Path(tempfile.mkdtemp(prefix="lime-guided-"))
    folder.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate([*seeds(folder), *(case.make() for case in CORPUS)]):
        if len(seed) < 2**15:
            (folder / f"seed-{number}").write_bytes(seed)
    (folder / "seed.lime").unlink()
    harness = Harness(Path(tempfile.mkdtemp(prefix="lime-guided-")), memory=False)
    options = [f"-runs={runs}", f"-max_total_time={seconds}", f"-timeout={SECONDS}", f"-rss_limit_mb={MEGABYTES}"]
    options += ["-max_len=32768", "-print_final_stats=1", "-reload=0", str(folder)]
    atheris.Setup([sys.argv[0], *options], lambda data: _judge(harness, data), custom_mutator=repaired)
    atheris.Fuzz()


def _judge(harness: Harness, data: bytes) -> None:
    harness.judge(data)


if __name__ == "__main__":
    main()
