"""Runs the operator's tests under sanitizers: `python -m tests.tools.sanitize [address] [thread]`; default both.

Compiles the library with a sanitizer and runs its tests, including malformed inputs and concurrent callers. Python and
onnxruntime are not compiled with it, so their own memory accesses are not checked. Needs Linux and GCC.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lime_edge.runtime.native.compiler import LIBRARY, compile_operators, find_compiler
from tests.support.paths import ROOT

TESTED = "LIME_EDGE_OPERATORS_TEST"  # the library that the tests use instead of the installed one
EXAMPLES = "LIME_EDGE_OPERATORS_EXAMPLES"  # number of random cases that each test draws


@dataclass(frozen=True)
class Sanitizer:
    """Compiler flags, libraries to preload into Python, options, and the tests to run."""

    flags: tuple[str, ...]
    runtimes: tuple[str, ...]
    options: dict[str, str]
    tests: tuple[str, ...]
    examples: int = 1


SANITIZERS = {
    "address": Sanitizer(
        ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer"),
        ("libasan.so", "libubsan.so", "libstdc++.so"),  # the last for exceptions thrown in onnxruntime
        # Python and onnxruntime keep some memory until the process ends
        {"ASAN_OPTIONS": "detect_leaks=0", "UBSAN_OPTIONS": "print_stacktrace=1"},
        ("tests/runtime/native/test_operators_parity.py", "tests/runtime/native/test_operators_malformed.py"),
        examples=300,
    ),
    "thread": Sanitizer(
        ("-fsanitize=thread",),
        ("libtsan.so",),
        {"TSAN_OPTIONS": "exitcode=0"},  # `reports` decides which reports count
        ("tests/runtime/native/test_operators_parity.py", "-k", "concurrent"),
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"some of {', '.join(SANITIZERS)}")
    names = parser.parse_args().names or list(SANITIZERS)
    if unknown := sorted(set(names) - set(SANITIZERS)):
        parser.error(f"unknown: {', '.join(unknown)}; expected some of {', '.join(SANITIZERS)}")
    failed = [name for name in names if not run(name, SANITIZERS[name])]
    raise SystemExit(bool(failed))


def run(name: str, sanitizer: Sanitizer) -> bool:
    """Compile the library and run its tests; whether they passed without a report."""
    with tempfile.TemporaryDirectory() as folder:
        # Without optimisation it compiles a minute faster, and the tests are not slower.
        library = compile_operators(Path(folder), flags=("-O0", "-g", *sanitizer.flags))
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *sanitizer.tests]
        status = subprocess.run(command, cwd=ROOT, env=environment(sanitizer, library), check=False).returncode
        texts = [path.read_text("utf-8", "replace") for path in sorted(Path(folder).glob("report.*"))]
    found = [report for text in texts for report in reports(text)]
    print(*found, sep="\n")
    print(
        f"{name} sanitizer: {len(found)} reports, tests {'passed' if status == 0 else f'FAILED ({status})'}", flush=True
    )
    return status == 0 and not found


def environment(sanitizer: Sanitizer, library: Path) -> dict[str, str]:
    asked = [[*find_compiler(), f"-print-file-name={name}"] for name in sanitizer.runtimes]
    runtimes = [subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() for command in asked]
    log = f"log_path={library.parent / 'report'}"
    return {
        **os.environ,
        **{name: f"{value}:{log}" for name, value in sanitizer.options.items()},
        "LD_PRELOAD": " ".join(runtimes),
        TESTED: str(library),
        EXAMPLES: str(sanitizer.examples),
    }


def reports(text: str) -> Iterator[str]:
    """A sanitizer's reports in its output, without data races that do not involve the operators."""
    if "WARNING: ThreadSanitizer" not in text:
        yield text
        return
    yield from (report for report in text.split("=" * 18) if "WARNING: ThreadSanitizer" in report and ours(report))


def ours(report: str) -> bool:
    """Whether the library itself made one of the racing accesses.

    ThreadSanitizer reports false races within onnxruntime, because it does not see the atomic operations of code that
    was not compiled with it.
    """
    accesses = report.split("\n\n")[:2]
    for access in accesses:
        modules = re.findall(r"^ +#\d+ .*\((\S+)\+0x", access, re.MULTILINE)
        first = next((module for module in modules if "libtsan" not in module), "")
        if LIBRARY in first:
            return True
    return False


if __name__ == "__main__":
    main()
