"""What the base install weighs and how fast it imports, measured in a fresh environment.

    python benchmarks/size.py [--keep DIR]

Builds the wheel of this repository, installs it with its base dependencies only, and prints the size of
site-packages, the heaviest packages and the time of an import. Needs the network; changes nothing here.
"""

from __future__ import annotations

import argparse
import platform
import shutil
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FORBIDDEN = ("torch", "transformers", "peft", "onnx")
SHOWN = 12


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", type=Path, metavar="DIR", help="make the environment here and keep it")
    keep = parser.parse_args().keep
    with tempfile.TemporaryDirectory() as temporary:
        measure(keep or Path(temporary) / "venv", Path(temporary))


def measure(home: Path, work: Path) -> None:
    """Install into a new environment at `home` and print the table."""
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
        raise SystemExit(f"the base install holds {', '.join(found)}")
    print(f"{platform.platform()}, Python {platform.python_version()}")
    print(f"wheel                {wheel.stat().st_size / 1e6:8.2f} MB")
    print(f"base install         {sum(sizes.values()) / 1e6:8.2f} MB, without pip")
    for name, size in sorted(sizes.items(), key=lambda item: -item[1])[:SHOWN]:
        print(f"  {name:<18} {size / 1e6:8.2f} MB")
    for module in ("lime_edge", "lime_edge.runtime"):
        print(f"import {module:<18} {_import_seconds(python, module):5.2f} s, best of 3")


def _copy(target: Path) -> Path:
    """The sources alone: setuptools leaves a build folder beside them, whose stale files end up in later wheels."""
    for folder in ("lime_edge", "exporters", "runtime"):
        shutil.copytree(ROOT / folder, target / folder, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / file, target)
    return target


def _site(python: str) -> Path:
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    return Path(subprocess.run([python, "-c", code], check=True, capture_output=True, text=True).stdout.strip())


def _sizes(site: Path) -> dict[str, int]:
    """Bytes of every entry of site-packages."""
    return {
        entry.name: sum(file.stat().st_size for file in [entry, *entry.rglob("*")] if file.is_file())
        for entry in site.iterdir()
    }


def _import_seconds(python: str, module: str) -> float:
    """Wall time of a new interpreter that imports the module, less one that imports nothing."""
    best = {code: float("inf") for code in ("pass", f"import {module}")}
    for _ in range(3):
        for code in best:
            start = time.perf_counter()
            subprocess.run([python, "-c", code], check=True, cwd=tempfile.gettempdir())
            best[code] = min(best[code], time.perf_counter() - start)
    return max(0.0, best[f"import {module}"] - best["pass"])


if __name__ == "__main__":
    main()
