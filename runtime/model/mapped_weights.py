"""Keeps a copy of a model with its weights prepacked for this processor, and maps it into memory.

ONNX Runtime maps the weights of a model, then copies nearly all of them into a layout that suits the processor. That
copy is private memory, made again at every start. This module stores it on disk: almost nothing is copied, processes
share the pages, and the system may evict and reload them.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import onnxruntime as ort

from lime_edge.contract.names import GRAPH_FILE, WEIGHTS_FILE
from lime_edge.errors import ConfigError

_PROVIDERS = ["CPUExecutionProvider"]
_STAMP = "mapped.json"
_OLDEST = (1, 31)  # oldest ONNX Runtime that was seen to save the prepacked weights of MatMulNBits correctly
_SAVING = {
    "session.optimized_model_external_initializers_file_name": WEIGHTS_FILE,
    # If a matrix is in the file but its scales are not, onnxruntime 1.31.1 crashes when it reads them; if shapes are in
    # the file, it refuses the graph.
    "session.optimized_model_external_initializers_min_size_in_bytes": "128",
    "session.save_external_prepacked_constant_initializers": "1",
}


def open_mapped(folder: Path, graph: Path, library: Path | None, options: Callable[[], Any]) -> Any:
    """A session on the copy in a folder; the copy is created first if it is missing or outdated.

    Args:
        folder: Holds only this copy. Its contents are trusted.
        graph: The graph file of the model.
        library: The native operators, or None.
        options: Creates the session's options.

    Raises:
        ConfigError: The folder cannot be written or holds other files, or ONNX Runtime is too old.
    """
    if tuple(int(part) for part in ort.__version__.split(".")[:2]) < _OLDEST:
        raise ConfigError(f"mapped needs onnxruntime {_OLDEST[0]}.{_OLDEST[1]} or later; this is {ort.__version__}")
    key = _key(graph, library)
    if not _fits(folder, key):
        _write(folder, graph, key, options())
        if not _fits(folder, key):
            raise ConfigError(
                f"mapped={str(folder)!r} is also written by another process; expected a folder for this model alone"
            )
    ready = options()
    ready.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL  # the copy is already optimised
    return ort.InferenceSession(str(folder / GRAPH_FILE), ready, providers=_PROVIDERS)


def _fits(folder: Path, key: str) -> bool:
    """Whether a folder holds a complete copy with this key.

    Raises:
        ConfigError: It holds other files.
    """
    stamp = _stamp(folder)
    if stamp is None and folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"mapped={str(folder)!r} holds other files; expected a folder for this copy alone")
    sizes = {name: (folder / name).stat().st_size for name in (GRAPH_FILE, WEIGHTS_FILE) if (folder / name).is_file()}
    return bool(stamp == {"key": key, "sizes": sizes})


def _stamp(folder: Path) -> Any:
    """The stamp written beside a copy; None if there is none."""
    with suppress(OSError, ValueError):
        return json.loads((folder / _STAMP).read_text("utf-8"))
    return None


def _write(folder: Path, graph: Path, key: str, options: Any) -> None:
    """Create the copy in a temporary folder beside `folder`, then replace `folder` with it."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as scratch:
            made = Path(scratch) / "made"
            made.mkdir()
            options.optimized_model_filepath = str(made / GRAPH_FILE)
            for name, value in _SAVING.items():
                options.add_session_config_entry(name, value)
            ort.InferenceSession(str(graph), options, providers=_PROVIDERS)
            (made / WEIGHTS_FILE).touch()  # not created for a graph without large weights
            sizes = {name: (made / name).stat().st_size for name in (GRAPH_FILE, WEIGHTS_FILE)}
            (made / _STAMP).write_text(json.dumps({"key": key, "sizes": sizes}), "utf-8")
            if folder.exists():
                os.replace(folder, Path(scratch) / "before")  # processes that have it mapped keep it
            with suppress(FileExistsError):  # another process was faster; its copy is the same
                os.replace(made, folder)
    except OSError as error:
        raise ConfigError(f"mapped={str(folder)!r} cannot be written: {error.strerror or error}") from error


def _key(graph: Path, library: Path | None) -> str:
    """A digest of all that a copy depends on: model, operators, ONNX Runtime and processor."""
    weights = [
        [found.name, (about := found.stat()).st_size, about.st_mtime_ns]
        for found in sorted(graph.parent.glob(f"{graph.name}*"))
        if found != graph
    ]
    parts = [_digest(graph), weights, library and _digest(library), ort.__version__, _processor()]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _processor() -> list[str]:
    """Facts that distinguish processors with different instruction sets."""
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines()
        keys = ("model name", "flags", "Features", "CPU part", "isa")
        return sorted({line for line in lines if line.startswith(keys)})
    return [platform.machine(), platform.processor(), platform.node()]
