"""Runs exported models in several versions of onnxruntime: `python -m tests.tools.versions [VERSION ...]`.

Every version gets its own environment with this repository's wheel and the base dependencies. The models are exported
once, with the installed version. Needs network access, the extras export and dev, and a C++ compiler. The first entry
of `VERSIONS` is the minimum version in pyproject.toml.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import venv
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from lime_edge.contract.routing import Routing
from lime_edge.exporters.genai_builder import Precision, build_backbone
from tests.support import runtime_models
from tests.support.operator_case import ALL, Case
from tests.support.paths import ROOT

VERSIONS = ("1.23.0", "1.25.1", "1.28.0")  # the oldest and two in between; the newest is the installed one
PRECISIONS: tuple[Precision, ...] = ("fp32", "int4")
CASES = {
    "one": Case(Routing(experts=1), ALL[:3]),
    "packed": Case(Routing(experts=4), ALL, inputs=40, sizes=(48, 16, 17), ranks=(3, 8, 2)),
    "half": Case(Routing(experts=3, mode="hard"), ALL[:1], sizes=(64,), half=True),
    "window": Case(Routing(experts=4, mode="auto_soft", window=3), ALL, sizes=(33, 18), ranks=(2, 3)),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("versions", nargs="*", metavar="VERSION", help="versions to test instead of the default ones")
    parser.add_argument("--dir", type=Path, default=ROOT / ".cache" / "versions", help="folder for the environments")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the results as JSON")
    given = parser.parse_args()
    given.dir.mkdir(parents=True, exist_ok=True)
    prepared = prepare(given.dir / "prepared")
    wheel = build_wheel(given.dir / "wheel")
    results = []
    for version in given.versions or (*VERSIONS, metadata.version("onnxruntime")):
        results.append({"version": version, **check(version, given.dir / version, wheel, prepared)})
        print(_line(results[-1]), flush=True)
    if given.json:
        given.json.write_text(json.dumps(results, indent=2) + "\n", "utf-8")
    raise SystemExit(any(result["faults"] for result in results))


def _line(result: dict[str, Any]) -> str:
    if result["faults"]:
        return "\n  - ".join([f"{result['version']:<8} FAILED", *result["faults"]])
    return (
        f"{result['version']:<8} passed: native {result['native']}, {result['difference']:.0e} from the function; "
        f"the base is equal bit for bit; {result['answers']} answers are equal; numpy {result['numpy']}"
    )


def prepare(folder: Path) -> Path:
    """Write tiny models of both precisions, each with the builder's plain graph and a skill, and single operators."""
    shutil.rmtree(folder, ignore_errors=True)
    for precision in PRECISIONS:
        exported = runtime_models.exported(precision=precision)
        shutil.copytree(exported, folder / precision / "model")
        shutil.copy(runtime_models.skill(exported, "legal"), folder / precision / "skill.lime")
        build_backbone(runtime_models.scratch() / "llama", folder / precision / "plain", precision)
    (folder / "operators").mkdir()
    for name, case in CASES.items():
        x, y = case.data(2, 5)
        ir.save(case.model(), folder / "operators" / f"{name}.onnx")
        np.savez(folder / "operators" / f"{name}.npz", **case.run(_Feed(), x, y, np.array([[1], [2]])))
    return folder


class _Feed:
    """Replaces a session and returns its inputs."""

    def run(self, _: None, feed: dict[str, Any]) -> dict[str, Any]:
        return feed


def build_wheel(folder: Path) -> Path:
    """Build a wheel of this repository with its native operators."""
    shutil.rmtree(folder, ignore_errors=True)
    sources = folder / "sources"  # a copy, because setuptools leaves a build folder there
    for name in ("lime_edge", "exporters", "runtime"):
        shutil.copytree(ROOT / name, sources / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, sources)
    _run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(sources))
    (wheel,) = folder.glob("*.whl")
    if wheel.stem.endswith("-any"):
        raise SystemExit("no C++ compiler: the wheel has no native operators to check; install one")
    return wheel


def check(version: str, home: Path, wheel: Path, prepared: Path) -> Any:
    """Run `version_check.py` in an environment with this version, and return its results."""
    if not home.exists():
        venv.create(home, with_pip=True)
    python = str(home / ("Scripts" if sys.platform == "win32" else "bin") / "python")
    try:
        _run(python, "-m", "pip", "install", "--quiet", f"onnxruntime=={version}", *_others())
        # without dependencies, so that versions below the minimum can be tested, too
        _run(python, "-m", "pip", "install", "--quiet", "--no-deps", "--force-reinstall", str(wheel))
        return json.loads(_run(python, "-P", str(Path(__file__).with_name("version_check.py")), str(prepared)))
    except subprocess.CalledProcessError as error:
        return {"faults": [f"{Path(error.cmd[0]).name} {' '.join(error.cmd[1:4])} ...: {error.stderr[-1000:]}"]}


def _others() -> list[str]:
    """The base dependencies except onnxruntime."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    return [need for need in project["dependencies"] if not re.match(r"onnxruntime\b", need)]


def _run(*command: str) -> str:
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, env=kept, cwd=ROOT.parent, capture_output=True, text=True, check=True)
    return done.stdout


if __name__ == "__main__":
    main()
