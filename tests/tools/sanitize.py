"""The operator's tests under sanitizers: `python -m tests.tools.sanitize [address] [thread]`; both without a name.

Compiles the library with the checks in it and runs its tests, malformed inputs and concurrent callers included.
Python and onnxruntime are not compiled so: what only they do is not watched. Needs Linux and GCC.
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

TESTED = "LIME_EDGE_OPERATORS_TEST"  # the library that the tests take instead of the installed one
EXAMPLES = "LIME_EDGE_OPERATORS_EXAMPLES"  # how many random cases each of them draws


@dataclass(frozen=True)
class Sanitizer:
    """What to compile in, what to load before Python, and what to run."""

    flags: tuple[str, ...]
    runtimes: tuple[str, ...]
    options: dict[str, str]
    tests: tuple[str, ...]
    examples: int = 1


SANITIZERS = {
    "address": Sanitizer(
        ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer"),
        ("libasan.so", "libubsan.so", "libstdc++.so"),  # the last one for the exceptions of others
        # Python and onnxruntime keep some memory until the end
        {"ASAN_OPTIONS": "detect_leaks=0", "UBSAN_OPTIONS": "print_stacktrace=1"},
        ("tests/runtime/native/test_operators_parity.py", "tests/runtime/native/test_operators_malformed.py"),
        examples=300,
    ),
    "thread": Sanitizer(
        ("-fsanitize=thread",),
        ("libtsan.so",),
        {"TSAN_OPTIONS": "exitcode=0"},  # reports are judged here: see `ours`
        ("tests/runtime/native/test_operators_parity.py", "-k", "concurrent"),
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(SANITIZERS)}")
    names = parser.parse_args().names or list(SANITIZERS)
    if unknown := sorted(set(names) - set(SANITIZERS)):
        parser.error(f"unknown: {', '.join(unknown)}")
    failed = [name for name in names if not run(name, SANITIZERS[name])]
    raise SystemExit(bool(failed))


def run(name: str, sanitizer: Sanitizer) -> bool:
    """Compile and test; whether all is well."""
    with tempfile.TemporaryDirectory() as folder:
        # Not optimised: a minute sooner compiled with all these checks, and no slower in the tests.
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
    """What a sanitizer wrote, without the races that are none of the operators'."""
    if "WARNING: ThreadSanitizer" not in text:
        yield text
        return
    yield from (report for report in text.split("=" * 18) if "WARNING: ThreadSanitizer" in report and ours(report))


def ours(report: str) -> bool:
    """Whether the library itself made one of the accesses that race.

    Between parts of onnxruntime ThreadSanitizer sees races where there are none, because it does not see the atomic
    operations of code that was not compiled for it.
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
