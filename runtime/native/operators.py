"""Which implementation of the LiME operators runs: a native library, or the functions in the graph.

Taken by itself is only the library that was installed with this package. Another one has to be named
by the caller, and never is one loaded because it lies in a model directory or a file there names it:
models come from strangers, and a library is code. Knows nothing of how a graph is run.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lime_edge.contract.model import OPSET
from lime_edge.errors import ConfigError

from .compiler import FOLDER, LIBRARY, SOURCE, CompilerError, compile_operators, sources_digest

VERSION = str(OPSET)  # the first word of what a library says of itself
AUTO: Literal["auto"] = "auto"
BUILD = "lime-edge doctor --build"


@dataclass(frozen=True)
class Operators:
    """What runs the LiME operators of a model."""

    library: Path | None = None  # None: the graph's own functions of standard operators
    cpu: str = ""  # the vector code in use: "avx512", "avx2", "neon" or "generic"
    reason: str = ""  # why no library is in use

    @property
    def native(self) -> bool:
        return self.library is not None

    def __str__(self) -> str:
        if self.native:
            return f"native, {self.cpu}"
        return f"functions of standard operators in the graph: {self.reason}"


def choose(wanted: Path | Literal["auto"] | None, device: str) -> Operators:
    """Decide what runs the operators.

    Args:
        wanted: A library; "auto" for the installed one where it fits the device; None for the functions.
        device: ``"cpu"`` or ``"cuda"``.

    Raises:
        ConfigError: The library that was named cannot be used.
    """
    if wanted is None:
        return Operators(reason="native operators were not asked for")
    if isinstance(wanted, Path):
        return describe(wanted.absolute())
    if device != "cpu":
        return Operators(reason=f"the native operators are for the CPU, and the device is {device}")
    try:
        return installed()
    except ConfigError as error:
        return Operators(reason=str(error))


def installed() -> Operators:
    """The library that was installed with this package.

    Raises:
        ConfigError: It was not built, or is not for this machine or version.
    """
    library = FOLDER / LIBRARY
    if not library.is_file():
        raise ConfigError(f"the native operators were not built at install: no C++ compiler, or it failed; `{BUILD}`")
    found, sources = _described(library)
    if sources not in ("", sources_digest()):  # in a clone, after an edit or a pull
        raise ConfigError(f"the native operators were built from other sources than these: `{BUILD}`")
    return found


def describe(library: Path) -> Operators:
    """Load a library and ask what it is.

    Raises:
        ConfigError: It cannot be loaded here, or is not one that this version can use.
    """
    return _described(library)[0]


def _described(library: Path) -> tuple[Operators, str]:
    """What a library is, and which sources it says it was built from ("" where it does not say)."""
    try:
        ask = ctypes.CDLL(str(library)).LimeOperatorsDescribe
    except (OSError, AttributeError) as error:  # not there, another machine's; another kind of library
        raise ConfigError(f"{library} is no library of LiME operators for this machine: {error}") from error
    ask.restype = ctypes.c_char_p
    version, cpu, sources = [*(ask() or b"").decode("ascii", "replace").split(" "), "", ""][:3]
    if version != VERSION:
        raise ConfigError(f"{library} has version {version!r}; expected {VERSION!r}: build it again, `{BUILD}`")
    return Operators(library, cpu), sources


def build() -> Operators:
    """Compile the library from the sources that came with this package, and put it where it is looked for.

    Raises:
        ConfigError: It cannot be compiled, or what was compiled cannot be used.
    """
    try:
        return describe(compile_operators(FOLDER, SOURCE))
    except CompilerError as error:
        raise ConfigError(f"the native operators cannot be built: {error}") from error
