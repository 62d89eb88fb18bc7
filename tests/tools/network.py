"""Runs the product under strace and reports every socket: `python -m tests.tools.network [--seconds N]`.

Nothing may open a socket that the user did not ask for. Loading, answering and learning run on tiny models, each for N
seconds, with a home folder of their own and with the network available; then comes one export. A first run, which does
open a socket, shows that the trace sees it. Needs Linux, strace and the extras `export` and `dev`.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.support import cli_models
from tests.support.paths import ROOT

#: Families that stay on this machine; a name that is looked up with the help of another process does not.
_LOCAL = ("AF_UNIX", "AF_NETLINK")
_LOOKUPS = ("nscd", "resolve")

_UNTIL = "import sys, time; end = time.monotonic() + float(sys.argv[1])\n"
_CONTROL = """
import contextlib, socket
with contextlib.suppress(OSError):
    socket.create_connection(("127.0.0.1", 9), timeout=1)
"""
_LOAD = f"""
{_UNTIL}
from lime_edge import Runtime
while time.monotonic() < end:
    Runtime.load(sys.argv[2]).generate("hello", max_new_tokens=1)
"""
_GENERATE = f"""
{_UNTIL}
from lime_edge import Runtime
runtime = Runtime.load(sys.argv[2])
runtime.load_skill(sys.argv[3])
while time.monotonic() < end:
    for skill in (None, "odd"):
        runtime.generate("hello", skill, max_new_tokens=32)
time.sleep(5)  # for what waits in the background
"""
_COMMAND = "import sys; from lime_edge.cli.commands import main; main(sys.argv[1:])"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60, help="how long each of the three runs takes")
    seconds = parser.parse_args().seconds
    if shutil.which("strace") is None:
        parser.error("strace is not installed: apt-get install strace")
    with tempfile.TemporaryDirectory() as work:
        if not sockets(Path(work), _CONTROL):
            raise SystemExit("strace does not see the sockets of a process here: may it trace on this machine?")
        faults = [
            fault for name, code, args in _runs(Path(work), seconds) for fault in _report(Path(work), name, code, args)
        ]
    raise SystemExit(bool(faults))


def _runs(work: Path, seconds: float) -> Iterator[tuple[str, str, tuple[object, ...]]]:
    """Name, Python code and arguments of each run."""
    (model, _), (checkpoint, _) = cli_models.exported(), cli_models.trained()
    skill = cli_models.learned()[0]
    yield "load", _LOAD, (seconds, model)
    yield "generate", _GENERATE, (seconds, model, skill)
    learn = ("learn", cli_models.data(), "-c", checkpoint, "--name", "x", "-o", work / "x.lime")
    yield "learn", _COMMAND, (*learn, "--steps", 10**6, "--minutes", seconds / 60)
    yield "export", _COMMAND, ("export", checkpoint, "-o", work / "model")


def _report(work: Path, name: str, code: str, args: tuple[object, ...]) -> list[str]:
    found = sockets(work, code, *args)
    print(f"{name}: {len(found)} sockets that leave this machine", *found, sep="\n  ", flush=True)
    return found


def sockets(work: Path, code: str, *args: object) -> list[str]:
    """The system calls of a Python program, and of its children, that open or use a socket beyond this machine.

    Raises:
        SystemExit: The program fails.
    """
    home, trace = Path(tempfile.mkdtemp(dir=work)), work / "trace"
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "ORT_", "XDG_"))}
    command = ["strace", "-f", "-qq", "-e", "trace=network", "-o", str(trace), sys.executable, "-c", code]
    done = subprocess.run(
        [*command, *map(str, args)],
        cwd=ROOT,
        env=kept | {"HOME": str(home)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"the traced program failed:\n{done.stderr[-2000:]}")
    return [line for line in trace.read_text("utf-8", "replace").splitlines() if _leaves(line)]


def _leaves(line: str) -> bool:
    """Whether a line of a trace names an address family, or a service for names, beyond this machine."""
    families = set(re.findall(r"\b[AP]F_[A-Z0-9]+", line))
    return bool(families - set(_LOCAL)) or any(word in line.lower() for word in _LOOKUPS)


if __name__ == "__main__":
    main()
