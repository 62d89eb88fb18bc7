"""Runs the native operators on aarch64 under qemu: `python -m tests.tools.platforms.arm [FOLDER]`. Needs Debian.

Cross-compiles the operators, fetches Python for arm64 from Debian and the wheels for aarch64 from PyPI into FOLDER, and
answers prompts of a tiny model there, natively and with the graph's functions. Answers and scores must be those of this
machine. Needs the packages g++-aarch64-linux-gnu and qemu-user; changes nothing outside FOLDER.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import click

from lime_edge.runtime.native.compiler import LIBRARY, compile_operators
from tests.support.paths import ROOT

_DEBIAN = (
    *("libc6", "libgcc-s1", "libstdc++6", "python3.11-minimal", "libpython3.11-minimal", "libpython3.11-stdlib"),
    *("zlib1g", "libexpat1", "libffi8", "libssl3", "liblzma5", "libbz2-1.0", "libsqlite3-0", "libuuid1"),
)
#: onnxruntime 1.32 crashes under qemu 7.2 when it is imported.
_WHEELS = (
    "onnxruntime==1.26.0",
    "numpy",
    "tokenizers",
    "safetensors",
    "click",
    "filelock",
    "jinja2",
    "platformdirs",
    "rich",
)
_PLATFORMS = ("manylinux_2_28_aarch64", "manylinux_2_27_aarch64", "manylinux2014_aarch64", "manylinux_2_17_aarch64")
_TOLERANCE = 1e-3  # of scores: sums of whole answers
_RUN = """
import json, sys
from lime_edge import Runtime
model, skills, expected, library = sys.argv[1:]
for operators in (library, None):
    runtime = Runtime.load(model, threads=1, operators=operators)
    for path in json.loads(skills):
        runtime.load_skill(path)
    off, equal, entries = 0.0, 0, json.load(open(expected))
    for entry in entries:
        found = runtime.generate(entry["prompt"], entry["skill"], max_new_tokens=entry["count"])
        equal += list(found.token_ids) == entry["ids"]
        scores = runtime.choose(entry["prompt"], entry["choices"], entry["skill"]).scores
        off = max(off, *(abs(scores[c] - s) for c, s in zip(entry["choices"], entry["scores"])))
    print(json.dumps([str(runtime.operators), equal, len(entries), off]), flush=True)
"""


def run_arm(folder: Path) -> bool:
    """Prepare everything that is not in `folder` yet, and compare; whether all answers are equal."""
    from tests.support.web_models import source
    from tests.tools.platforms.web_fixtures import write_fixtures

    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "root").exists():
        _fetch_python(folder)
    if not (folder / "site").exists():
        _fetch_wheels(folder)
    shutil.rmtree(folder / "fixtures", ignore_errors=True)
    (folder / "fixtures").mkdir()
    write_fixtures(folder / "fixtures")
    shutil.copytree(source(), folder / "fixtures" / "model")
    os.environ["CXX"] = "aarch64-linux-gnu-g++"
    compile_operators(folder / "native")
    done = subprocess.run(_command(folder), env=_environment(folder), stdout=subprocess.PIPE, text=True, check=False)
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]
    for what, equal, count, off in lines:
        print(f"{what}: {equal} of {count} answers are equal, scores are off by at most {off:.1e}")
    natively = bool(lines) and "neon" in lines[0][0]
    return natively and len(lines) == 2 and all(equal == count and off < _TOLERANCE for _, equal, count, off in lines)


def _command(folder: Path) -> list[str]:
    root, fixtures = folder / "root", folder / "fixtures"
    libraries = ":".join(str(root / place / "aarch64-linux-gnu") for place in ("lib", "usr/lib"))
    skills = json.dumps([str(path) for path in sorted((fixtures / "skills").glob("*.lime"))])
    emulator = ["qemu-aarch64", "-cpu", "cortex-a72", "-L", str(root), "-E", f"LD_LIBRARY_PATH={libraries}"]
    given = [str(fixtures / "model"), skills, str(fixtures / "expected.json"), str(folder / "native" / LIBRARY)]
    return [*emulator, str(root / "usr/bin/python3.11"), "-c", _RUN, *given]


def _environment(folder: Path) -> dict[str, str]:
    path = f"{folder / 'site'}:{ROOT}"
    return {**os.environ, "PYTHONHOME": str(folder / "root/usr"), "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}


def _fetch_python(folder: Path) -> None:
    """Python and its libraries for arm64, with lists of packages of its own."""
    state = folder / "apt"
    for name in ("lists/partial", "cache/archives/partial", "debs"):
        (state / name).mkdir(parents=True, exist_ok=True)
    (state / "status").touch()
    places = {
        "State": state,
        "State::lists": state / "lists",
        "State::status": state / "status",
        "Cache": state / "cache",
    }
    settings = [
        "-oAPT::Architecture=arm64",
        "-oAPT::Architectures=arm64",
        *(f"-oDir::{name}={place}" for name, place in places.items()),
    ]
    subprocess.run(["apt-get", "update", "-qq", *settings], check=True)
    subprocess.run(["apt-get", "download", "-qq", *settings, *_DEBIAN], cwd=state / "debs", check=True)
    made = folder / "root.made"
    for package in sorted((state / "debs").glob("*.deb")):
        subprocess.run(["dpkg", "-x", str(package), str(made)], check=True)
    made.rename(folder / "root")


def _fetch_wheels(folder: Path) -> None:
    made, wheels = folder / "site.made", folder / "wheels"
    target = [word for platform in _PLATFORMS for word in ("--platform", platform)]
    chosen = ["--only-binary=:all:", "--python-version", "3.11", "--implementation", "cp", *target]
    subprocess.run([sys.executable, "-m", "pip", "download", "-q", "-d", str(wheels), *chosen, *_WHEELS], check=True)
    for wheel in sorted(wheels.glob("*.whl")):
        shutil.unpack_archive(wheel, made, "zip")
    made.rename(folder / "site")


@click.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path), default=ROOT / "build" / "arm")
def main(folder: Path) -> None:
    """Run the native operators on aarch64 under qemu."""
    missing = [name for name in ("qemu-aarch64", "aarch64-linux-gnu-g++") if shutil.which(name) is None]
    if missing:
        raise click.ClickException(f"{', '.join(missing)} not found: apt install g++-aarch64-linux-gnu qemu-user")
    if not run_arm(folder.absolute()):
        raise click.ClickException("the answers differ from those of this machine")


if __name__ == "__main__":
    main()
