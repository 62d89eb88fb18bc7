"""A copy of a graph with its weights laid out as this processor wants them, mapped into memory from a file.

ONNX Runtime maps the weights of a model, then copies nearly all of them into another order: memory of this process
alone, made again at every start. Here what it made is kept on the disk, next to nothing is copied, several processes
share the pages, and the system may drop and read them again. Knows nothing of skills.
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
_OLDEST = (1, 31)  # of ONNX Runtime, that was seen to keep the copies of MatMulNBits whole
_SAVING = {
    "session.optimized_model_external_initializers_file_name": WEIGHTS_FILE,
    # Where a matrix is in the file and its scales are not, onnxruntime 1.31.1 crashes when it reads them again; where
    # shapes are in the file, it refuses the graph.
    "session.optimized_model_external_initializers_min_size_in_bytes": "128",
    "session.save_external_prepacked_constant_initializers": "1",
}


def open_mapped(folder: Path, graph: Path, library: Path | None, options: Callable[[], Any]) -> Any:
    """A session on the copy in a folder, which is made first where it is missing or of something else.

    Args:
        folder: For this copy alone. What is in it is trusted as it is.
        graph: The model.
        library: The native operators, or None.
        options: Makes the session's options.

    Raises:
        ConfigError: The folder cannot be written or holds something else, or ONNX Runtime is too old.
    """
    if tuple(int(part) for part in ort.__version__.split(".")[:2]) < _OLDEST:
        raise ConfigError(f"mapped needs onnxruntime {_OLDEST[0]}.{_OLDEST[1]} or later; this is {ort.__version__}")
    key = _key(graph, library)
    if not _fits(folder, key):
        _write(folder, graph, key, options())
        if not _fits(folder, key):
            raise ConfigError(f"mapped={str(folder)!r} is written by somebody else, too; expected a folder of its own")
    ready = options()
    ready.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL  # it was optimised when it was made
    return ort.InferenceSession(str(folder / GRAPH_FILE), ready, providers=_PROVIDERS)


def _fits(folder: Path, key: str) -> bool:
    """Whether a folder has the whole copy of that key.

    Raises:
        ConfigError: It has something else altogether.
    """
    stamp = _stamp(folder)
    if stamp is None and folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"mapped={str(folder)!r} holds something else; expected a folder for this copy alone")
    sizes = {name: (folder / name).stat().st_size for name in (GRAPH_FILE, WEIGHTS_FILE) if (folder / name).is_file()}
    return bool(stamp == {"key": key, "sizes": sizes})


def _stamp(folder: Path) -> Any:
    """What was written beside a copy; None where there is none."""
    with suppress(OSError, ValueError):
        return json.loads((folder / _STAMP).read_text("utf-8"))
    return None


def _write(folder: Path, graph: Path, key: str, options: Any) -> None:
    """Make the copy beside the folder, whole, then let it take the folder's place."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as scratch:
            made = Path(scratch) / "made"
            made.mkdir()
            options.optimized_model_filepath = str(made / GRAPH_FILE)
            for name, value in _SAVING.items():
                options.add_session_config_entry(name, value)
            ort.InferenceSession(str(graph), options, providers=_PROVIDERS)
            (made / WEIGHTS_FILE).touch()  # a graph without large weights has none
            sizes = {name: (made / name).stat().st_size for name in (GRAPH_FILE, WEIGHTS_FILE)}
            (made / _STAMP).write_text(json.dumps({"key": key, "sizes": sizes}), "utf-8")
            if folder.exists():
                os.replace(folder, Path(scratch) / "before")  # whoever has it mapped keeps it
            with suppress(FileExistsError):  # another process was quicker; its copy is the same
                os.replace(made, folder)
    except OSError as error:
        raise ConfigError(f"mapped={str(folder)!r} cannot be written: {error.strerror or error}") from error


def _key(graph: Path, library: Path | None) -> str:
    """What a copy depends on: the model, the operators, ONNX Runtime, and the processor."""
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
    """What tells processors with other instructions apart."""
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines()
        told = ("model name", "flags", "Features", "CPU part", "isa")
        return sorted({line for line in lines if line.startswith(told)})
    return [platform.machine(), platform.processor(), platform.node()]
