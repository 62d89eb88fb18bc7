"""Finds a C++ compiler and compiles the native operators.

It uses only the standard library and does not import the package, because setup.py loads this file by its path.
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

# No -march: the source holds code for several processors, and the library chooses when it is loaded.
_FLAGS = ("-std=c++17", "-O3", "-shared", "-fvisibility=hidden", *(() if sys.platform == "win32" else ("-fPIC",)))
_COMPILERS = ("c++", "g++", "clang++")
_TAIL = 2000  # characters of the compiler's output in an error message


def sources_digest(folder: Path = FOLDER) -> str:
    """A digest of the C++ sources, which identifies a library built from other sources as stale."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.iterdir() if path.suffix in (".cpp", ".h", ".inc")):
        digest.update(f"{path.name} {path.stat().st_size}\n".encode() + path.read_bytes())
    return digest.hexdigest()[:12]


class CompilerError(RuntimeError):
    """There is no compiler, or it failed; the message says why."""


def find_compiler() -> list[str]:
    """The first words of the command line: $CXX, otherwise the first compiler on the path.

    Raises:
        CompilerError: No compiler was found.
    """
    if named := os.environ.get("CXX", "").strip():
        return shlex.split(named, posix=os.name == "posix")
    compiler = next(filter(None, map(shutil.which, _COMPILERS)), None)
    if compiler is None:
        raise CompilerError(f"no C++ compiler: looked for $CXX, {', '.join(_COMPILERS)}")
    return [compiler]


def compile_operators(folder: Path = FOLDER, source: Path = SOURCE, flags: Sequence[str] = ()) -> Path:
    """Compile the library and replace an existing one atomically.

    Args:
        folder: The folder for the library; created if missing.
        source: The translation unit.
        flags: Extra compiler flags, placed after the default ones and before $CXXFLAGS and $LDFLAGS.

    Returns:
        The library, `folder` / `LIBRARY`.

    Raises:
        CompilerError: There is no compiler, compilation failed, or the folder cannot be written.
    """
    compiler = find_compiler()
    extra = [word for name in ("CXXFLAGS", "LDFLAGS") for word in shlex.split(os.environ.get(name, ""))]
    try:
        stamp = f'-DLIME_SOURCES=" {sources_digest(source.parent)}"'
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            made = Path(scratch) / LIBRARY
            _run([*compiler, *_FLAGS, stamp, *flags, str(source), "-o", str(made), *extra])
            return made.replace(folder / LIBRARY)
    except OSError as error:
        raise CompilerError(f"{folder / LIBRARY} cannot be made: {error}") from error


def _run(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode:
        raise CompilerError(f"{shlex.join(command)} failed ({done.returncode}):\n{done.stderr.strip()[-_TAIL:]}")
