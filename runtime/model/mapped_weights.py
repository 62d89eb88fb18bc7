"""Keeps a copy of a model with its weights prepacked for this processor, and maps it into memory.

ONNX Runtime maps the weights of a model, then copies nearly all of them into a layout that suits the processor. That
copy is private memory, made again at every start. This module stores it on disk: almost nothing is copied, processes
share the pages, and the system may evict and reload them.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import platform
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import onnxruntime as ort

from lime_edge.common.scratch_folder import scratch_folder
from lime_edge.contract.model_files import file_digest
from lime_edge.contract.names import GRAPH_FILE, WEIGHTS_FILE
from lime_edge.errors import ConfigError

_PROVIDERS = ["CPUExecutionProvider"]
_STAMP = "mapped.json"
_FILES = (GRAPH_FILE, WEIGHTS_FILE)
_TRIES = 3  # other processes may replace the copy between two steps
_OLDEST = (1, 31)  # oldest ONNX Runtime that was seen to save the prepacked weights of MatMulNBits correctly
_SAVING = {
    "session.optimized_model_external_initializers_file_name": WEIGHTS_FILE,
    # If a matrix is in the file but its scales are not, onnxruntime 1.31.1 crashes when it reads them; if shapes are in
    # the file, it refuses the graph.
    "session.optimized_model_external_initializers_min_size_in_bytes": "128",
    "session.save_external_prepacked_constant_initializers": "1",
}


def open_mapped(
    folder: Path, graph: Path, library: Path | None, options: Callable[[], Any], verify: bool = False
) -> Any:
    """A session on the copy in a folder; the copy is created first if it is missing or outdated.

    Processes may create the same copy at the same time: the slower ones use that of the fastest.

    Args:
        folder: Holds only this copy. Its contents are trusted.
        graph: The graph file of the model.
        library: The native operators, or None.
        options: Creates the session's options.
        verify: Hash the copy; one that was damaged is created anew.

    Raises:
        ConfigError: The folder cannot be written or holds other files, or ONNX Runtime is too old.
    """
    if tuple(int(part) for part in ort.__version__.split(".")[:2]) < _OLDEST:
        raise ConfigError(f"mapped needs onnxruntime {_OLDEST[0]}.{_OLDEST[1]} or later; this is {ort.__version__}")
    key = _key(graph, library)
    for _ in range(_TRIES):
        if not _fits(folder, key, verify):
            _write(folder, graph, key, options(), verify)
        session = _opened(folder, key, options())
        if session is not None:
            return session
    raise ConfigError(
        f"mapped={str(folder)!r} is also written by another process; expected a folder for this model alone"
    )


def _opened(folder: Path, key: str, options: Any) -> Any | None:
    """A session on the copy; None if another process replaced it in the meantime."""
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL  # the copy is already optimised
    try:
        session = ort.InferenceSession(str(folder / GRAPH_FILE), options, providers=_PROVIDERS)
    except Exception:  # onnxruntime's exceptions share no base below Exception
        if _fits(folder, key):
            raise
        return None
    return session if _fits(folder, key) else None


def _fits(folder: Path, key: str, verify: bool = False) -> bool:
    """Whether a folder holds a complete copy with this key.

    Raises:
        ConfigError: It holds other files, or cannot be read.
    """
    try:
        names = _names(folder)
        if names and not {_STAMP} <= names <= {_STAMP, *_FILES}:
            raise ConfigError(f"mapped={str(folder)!r} holds other files; expected a folder for this copy alone")
        stamp = _stamp(folder)
        if stamp is None or stamp.get("key") != key or stamp.get("sizes") != _facts(folder, _size):
            return False
        return not verify or stamp.get("digests") == _facts(folder, file_digest)
    except FileNotFoundError:  # another process is replacing it
        return False
    except OSError as error:
        raise ConfigError(f"mapped={str(folder)!r} cannot be read: {error.strerror or error}") from error


def _names(folder: Path) -> set[str]:
    """The entries of a folder at one moment; none if it does not exist. A file is its own entry."""
    try:
        return set(os.listdir(folder))
    except FileNotFoundError:
        return set()
    except NotADirectoryError:
        return {folder.name} if folder.exists() else set()


def _stamp(folder: Path) -> dict[str, Any] | None:
    """The stamp written beside a copy; None if there is none."""
    with suppress(OSError, ValueError, RecursionError):
        stamp = json.loads((folder / _STAMP).read_text("utf-8"))
        return stamp if isinstance(stamp, dict) else None
    return None


def _facts(folder: Path, fact: Callable[[Path], Any]) -> dict[str, Any]:
    return {name: fact(folder / name) for name in _FILES}


def _size(file: Path) -> int:
    return file.stat().st_size


def _write(folder: Path, graph: Path, key: str, options: Any, verify: bool) -> None:
    """Create the copy in a temporary folder beside `folder`, then replace `folder` with it."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with scratch_folder(folder) as scratch:
            made = scratch / "made"
            made.mkdir()
            options.optimized_model_filepath = str(made / GRAPH_FILE)
            for name, value in _SAVING.items():
                options.add_session_config_entry(name, value)
            ort.InferenceSession(str(graph), options, providers=_PROVIDERS)
            (made / WEIGHTS_FILE).touch()  # not created for a graph without large weights
            stamp = {"key": key, "sizes": _facts(made, _size), "digests": _facts(made, file_digest)}
            (made / _STAMP).write_text(json.dumps(stamp), "utf-8")
            if not _fits(folder, key, verify):  # otherwise another process was faster; its copy is the same
                _replace(folder, made, scratch / "before")
    except OSError as error:
        raise ConfigError(f"mapped={str(folder)!r} cannot be written: {error.strerror or error}") from error


def _replace(folder: Path, made: Path, before: Path) -> None:
    """Move a copy into place; another process may do the same at any moment, and the faster one wins."""
    with suppress(FileNotFoundError):
        os.replace(folder, before)  # processes that have it mapped keep it
    try:
        os.replace(made, folder)
    except OSError as error:
        if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
            raise


def _key(graph: Path, library: Path | None) -> str:
    """A digest of all that a copy depends on: model, operators, ONNX Runtime and processor."""
    weights = [
        [found.name, (about := found.stat()).st_size, about.st_mtime_ns]
        for found in sorted(graph.parent.glob(f"{graph.name}*"))
        if found != graph
    ]
    parts = [file_digest(graph), weights, library and file_digest(library), ort.__version__, _processor()]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _processor() -> list[str]:
    """Facts that distinguish processors with different instruction sets."""
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines()
        keys = ("model name", "flags", "Features", "CPU part", "isa")
        return sorted({line for line in lines if line.startswith(keys)})
    return [platform.machine(), platform.processor(), platform.node()]
