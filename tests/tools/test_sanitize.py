"""`tests.tools.sanitize`: which reports count, and that its environment variables are those that the tests read."""

from __future__ import annotations

from pathlib import Path

from tests.runtime.native import test_operators_malformed, test_operators_parity
from tests.support.paths import ROOT
from tests.tools import sanitize

ACCESS = """\
  {kind} of size 8 at 0x7b0800063d40 by thread T1 (mutexes: write M2763):
    #0 memcpy ../../sanitizer_common/sanitizer_common_interceptors.inc:827 (libtsan.so+0x5dda6)
    #1 {function} ({module}+0x40c9ec)
    #2 compute registration.h:73 (liblime_operators.so+0x166d2)
"""
REST = """\
  Location is heap block of size 28 at 0x7b0800063d40 allocated by main thread:
    #0 operator new(unsigned long) (libtsan.so+0x87323)
    #1 memory operators.cpp:40 (liblime_operators.so+0x40c9d6)

SUMMARY: ThreadSanitizer: data race
"""
OURS, THEIRS = ("copy kernel.inc:364", "liblime_operators.so"), ("<null> <null>", "onnxruntime_pybind11_state.so")


def race(*accesses: tuple[str, str]) -> str:
    parts = [
        ACCESS.format(kind=kind, function=function, module=module)
        for kind, (function, module) in zip(("Read", "Previous write"), accesses, strict=True)
    ]
    return "WARNING: ThreadSanitizer: data race (pid=1)\n" + "\n".join([*parts, REST])


def test_races_count_where_the_library_made_an_access() -> None:
    """A call from the library, or memory that it allocated, is not enough."""
    bar = "=" * 18
    text = f"\n{bar}\n".join(
        ["", race(THEIRS, THEIRS), race(OURS, THEIRS), race(THEIRS, OURS), race(THEIRS, THEIRS), ""]
    )
    assert list(sanitize.reports(text)) == [f"\n{race(OURS, THEIRS)}\n", f"\n{race(THEIRS, OURS)}\n"]


def test_everything_else_counts() -> None:
    assert list(sanitize.reports("==1==ERROR: AddressSanitizer: heap-buffer-overflow")) != []
    assert list(sanitize.reports("kernel.inc:3: runtime error: signed integer overflow")) != []


def test_the_tests_take_what_they_are_given() -> None:
    for module in (test_operators_parity, test_operators_malformed):
        text = Path(str(module.__file__)).read_text("utf-8")
        assert sanitize.EXAMPLES in text
    assert sanitize.TESTED in Path(str(test_operators_parity.__file__)).read_text("utf-8")
    assert all((ROOT / name).is_file() for name in sanitize.SANITIZERS["address"].tests)
