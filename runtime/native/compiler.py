"""Compiles the native operators: with which compiler, by which command, to which file.

Standard library only and no import of the package, because setup.py loads this file by its path.
Knows nothing of what the operators do, nor of how a library is used.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

FOLDER = Path(__file__).parent
SOURCE = FOLDER / "operators.cpp"
LIBRARY = {"win32": "lime_operators.dll", "darwin": "liblime_operators.dylib"}.get(sys.platform, "liblime_operators.so")

# No -march: the source holds code for several processors and chooses when it is loaded.
_FLAGS = ("-std=c++17", "-O3", "-shared", "-fvisibility=hidden", *(() if sys.platform == "win32" else ("-fPIC",)))
_COMPILERS = ("c++", "g++", "clang++")
_TAIL = 2000  # characters of what a compiler said


def sources_digest(folder: Path = FOLDER) -> str:
    """What tells one state of the C++ sources from another: a library that was built from others is stale."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.iterdir() if path.suffix in (".cpp", ".h", ".inc")):
        digest.update(f"{path.name} {path.stat().st_size}\n".encode() + path.read_bytes())
    return digest.hexdigest()[:12]


class CompilerError(RuntimeError):
    """There is no compiler, or it failed; the message says which and why."""


def find_compiler() -> list[str]:
    """The words of a command line that begin it: $CXX, else the first compiler on the path.

    Raises:
        CompilerError: There is none.
    """
    if named := os.environ.get("CXX", "").strip():
        return shlex.split(named, posix=os.name == "posix")
    found = next(filter(None, map(shutil.which, _COMPILERS)), None)
    if found is None:
        raise CompilerError(f"no C++ compiler: looked for $CXX, {', '.join(_COMPILERS)}")
    return [found]


def compile_operators(folder: Path = FOLDER, source: Path = SOURCE, flags: Sequence[str] = ()) -> Path:
    """Compile the library; what was there before is replaced at once or not at all.

    Args:
        folder: Where to put it; made if missing.
        source: The one translation unit.
        flags: After the usual ones; $CXXFLAGS and $LDFLAGS follow.

    Returns:
        The library, `folder` / `LIBRARY`.

    Raises:
        CompilerError: No compiler, a failed compilation, or a folder that cannot be written.
    """
    compiler = find_compiler()
    own = [word for name in ("CXXFLAGS", "LDFLAGS") for word in shlex.split(os.environ.get(name, ""))]
    try:
        stamp = f'-DLIME_SOURCES=" {sources_digest(source.parent)}"'
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            made = Path(scratch) / LIBRARY
            _run([*compiler, *_FLAGS, stamp, *flags, str(source), "-o", str(made), *own])
            return made.replace(folder / LIBRARY)
    except OSError as error:
        raise CompilerError(f"{folder / LIBRARY} cannot be made: {error}") from error


def _run(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode:
        raise CompilerError(f"{shlex.join(command)} failed ({done.returncode}):\n{done.stderr.strip()[-_TAIL:]}")
