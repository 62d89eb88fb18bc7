"""Cost of signatures at load: skills with and without a trust policy, with 1 to 1,000 skills loaded.

    python -m benchmarks.speed.trust EXPORTED SKILL.lime [--json FILE]

Every skill is a different file with a P-256 signature of its own, which the policy requires. For each number of loaded
skills, two runtimes load the same file one after the other. See docs/trust.md.
"""

from __future__ import annotations

import json
import statistics
import tempfile
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

import click
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from rich.console import Console
from rich.progress import track

from benchmarks.harness.latency import Latency, table, timed
from benchmarks.harness.rounds import machine, versions
from benchmarks.harness.skill_copies import write_copies
from lime_edge import Runtime
from lime_edge.trust.signature_file import signature_path
from lime_edge.trust.signing import sign_skill

from .command import numbers

_WAYS = ("load_skill", "load_skill, signed")
_PATH = click.Path(path_type=Path)
_POLICY = """\
format = 1
require_signatures = true

[[publishers]]
name = "acme"
skills = ["*"]
keys = [{ file = "key.pub" }]
"""


@click.command()
@click.argument("exported", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("skill", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--loaded", default="1,10,100,1000", show_default=True, callback=numbers, help="Counts of loaded skills.")
@click.option("--loads", default=100, show_default=True, type=click.IntRange(1), help="Number of measured loads.")
@click.option("--work", type=_PATH, help="Folder that keeps the signed skills for later runs.")
@click.option("--json", "json_path", type=_PATH, help="Also write the results to this JSON file.")
def main(exported: Path, skill: Path, loaded: list[int], loads: int, work: Path | None, json_path: Path | None) -> None:
    """Measure loading skills with and without a trust policy."""
    before = machine()
    with ExitStack() as stack:
        folder = work or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        files = write_copies(skill, folder / "copies", max(loaded) + loads)
        policy = sign(files, folder)
        taken = measure(exported, files, policy, loaded, loads)
    found = [Latency.of("lime-edge", way, count, seconds) for (way, count), seconds in taken.items()]
    Console(width=100).print(table("one call", found))
    ratios = {count: statistics.median(_ratios(taken, count)) for count in sorted(loaded)}
    for count, ratio in ratios.items():
        click.echo(f"{count:,} loaded: a signed load takes {ratio:.2f} times as long, median of {loads} pairs")
    if json_path is not None:
        before["packages"] |= versions(("cryptography", "model-signing"))
        figures = [asdict(one) for one in found]
        document = {"benchmark": "trust", "machine": before, "figures": figures, "ratios": ratios}
        json_path.write_text(json.dumps(document, indent=1) + "\n", "utf-8")


def sign(files: list[Path], folder: Path) -> Path:
    """Create a key, a policy that requires it, and missing signatures; returns the policy's file."""
    private, policy = folder / "key.pem", folder / "policy.toml"
    if not private.exists():
        key = ec.generate_private_key(ec.SECP256R1())
        form, whole = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        private.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, whole))
        public = serialization.PublicFormat.SubjectPublicKeyInfo
        (folder / "key.pub").write_bytes(key.public_key().public_bytes(serialization.Encoding.PEM, public))
    policy.write_text(_POLICY, "utf-8")
    for path in track(files, "signing", transient=True):
        if not signature_path(path).exists():
            sign_skill(path, private)
    return policy


def measure(
    exported: Path, files: list[Path], policy: Path, loaded: list[int], loads: int
) -> dict[tuple[str, int], list[float]]:
    """Seconds of every load by (with or without policy, number of loaded skills); the runtimes alternate."""
    spare = files[-loads:]
    runtimes = {
        (way, count): Runtime.load(exported, threads=1, trust=trust)
        for count in sorted(loaded)
        for way, trust in zip(_WAYS, (None, policy), strict=True)
    }
    for (_, count), runtime in runtimes.items():
        for path in track(files[:count], f"loading {count:,}", transient=True):
            runtime.load_skill(path)
    taken: dict[tuple[str, int], list[float]] = {key: [] for key in runtimes}
    for number, path in enumerate(track(spare, "loading", transient=True)):
        order = list(runtimes.items())
        # Alternate the order, so that neither way always finds the file in the page cache.
        for key, runtime in order[:: -1 if number % 2 else 1]:
            taken[key].append(timed(runtime.load_skill, path))
            runtime.unload_skill(path.stem)
    return taken


def _ratios(taken: dict[tuple[str, int], list[float]], count: int) -> list[float]:
    plain, signed = (taken[way, count] for way in _WAYS)
    return [one / other for one, other in zip(signed, plain, strict=True)]


if __name__ == "__main__":
    main()
