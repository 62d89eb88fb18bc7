"""Chooses what runs the LiME operators: a native library, or the functions in the graph.

Only the library installed with this package is loaded automatically; the caller must name any other. A library in a
model directory, or named by a file there, is never loaded: models are untrusted, and a library is code.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lime_edge.contract.model import OPSET
from lime_edge.errors import ConfigError

from .compiler import FOLDER, LIBRARY, SOURCE, CompilerError, compile_operators, sources_digest

VERSION = str(OPSET)  # the first word of a library's description of itself
AUTO: Literal["auto"] = "auto"
BUILD = "lime-edge doctor --build"


@dataclass(frozen=True)
class Operators:
    """What runs the LiME operators of a model."""

    library: Path | None = None  # None: the graph's own functions of standard operators
    cpu: str = ""  # the instruction set in use: "avx512", "avx2", "neon" or "generic"
    reason: str = ""  # why no library is used

    @property
    def native(self) -> bool:
        return self.library is not None

    def __str__(self) -> str:
        if self.native:
            return f"native, {self.cpu}"
        return f"functions of standard operators in the graph: {self.reason}"


def choose(wanted: Path | Literal["auto"] | None, device: str) -> Operators:
    """Choose what runs the operators.

    Args:
        wanted: A library; "auto": the installed one if it supports the device; None: the functions.
        device: ``"cpu"`` or ``"cuda"``.

    Raises:
        ConfigError: The named library cannot be used.
    """
    if wanted is None:
        return Operators(reason="native operators were not requested")
    if isinstance(wanted, Path):
        return describe(wanted.absolute())
    if device != "cpu":
        return Operators(reason=f"the native operators support the CPU only; the device is {device}")
    try:
        return installed()
    except ConfigError as error:
        return Operators(reason=str(error))


def installed() -> Operators:
    """The library installed with this package.

    Raises:
        ConfigError: It was not built, or it was built for another machine or version.
    """
    library = FOLDER / LIBRARY
    if not library.is_file():
        raise ConfigError(
            f"the native operators were not built at install: no C++ compiler, or it failed. Run `{BUILD}`"
        )
    found, sources = _described(library)
    if sources not in ("", sources_digest()):  # in a clone, after an edit or a git pull
        raise ConfigError(f"the native operators were built from other sources than the present ones. Run `{BUILD}`")
    return found


def describe(library: Path) -> Operators:
    """Load a library and read its description.

    Raises:
        ConfigError: It cannot be loaded on this machine, or does not fit this version.
    """
    return _described(library)[0]


def _described(library: Path) -> tuple[Operators, str]:
    """A library, and the digest of the sources that it was built from ("" if it does not state one)."""
    try:
        ask = ctypes.CDLL(str(library)).LimeOperatorsDescribe
    except (OSError, ValueError, AttributeError) as error:  # missing, no path, for another machine, another library
        raise ConfigError(f"{library} is not a library of LiME operators for this machine: {error}") from error
    ask.restype = ctypes.c_char_p
    version, cpu, sources = [*(ask() or b"").decode("ascii", "replace").split(" "), "", ""][:3]
    if version != VERSION:
        raise ConfigError(f"{library} has version {version!r}; expected {VERSION!r}. Build it again: `{BUILD}`")
    return Operators(library, cpu), sources


def build() -> Operators:
    """Compile the sources that come with this package into its own folder, from which `installed` loads the library.

    Raises:
        ConfigError: Compilation failed, or the library cannot be loaded.
    """
    try:
        return describe(compile_operators(FOLDER, SOURCE))
    except CompilerError as error:
        raise ConfigError(f"the native operators cannot be built: {error}") from error
