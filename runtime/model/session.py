"""The ONNX Runtime session of one model directory, and what its graph asks for.

Knows names, types and devices; the KV cache and the decoding loop are in `cache.py` and `answer.py`.
The CUDA path is written to the same interface; it was not run on a GPU.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from lime_edge.contract.names import BANK, EVIDENCE, LOGITS_FROM, PAST_EVIDENCE, SKILL_IDS
from lime_edge.errors import ConfigError, DeviceError, ModelError
from lime_edge.runtime.memory.pool import Pool
from lime_edge.runtime.native.operators import AUTO, Operators, choose

from .cores import usable_cores
from .directory import ModelDirectory
from .mapped_weights import open_mapped

_DTYPES: dict[str, npt.DTypeLike] = {"tensor(float)": np.float32, "tensor(float16)": np.float16}
_FOLDED = 2**20  # bytes of a constant that is computed when a session is made, at most
#: Microseconds: longer than the pause between two operators of a token, so that its threads sleep only after it. On
#: an idle machine a token takes four fifths of its time without; on a busy one about a fifth more.
SPIN = 20
_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


@dataclass(frozen=True)
class SessionSettings:
    """How ONNX Runtime runs the graph."""

    device: str = "auto"  # auto, cpu or cuda
    threads: int | None = None  # None: one per physical core that this process may use
    spin: int | None = None  # microseconds that an idle thread waits awake; None: `SPIN` where that can be bounded
    operators: Path | Literal["auto"] | None = AUTO  # native library, the installed one, or the graph's functions
    mapped: Path | None = None  # folder of a copy whose weights are mapped

    def __post_init__(self) -> None:
        faults = []
        if self.device not in ("auto", *_PROVIDERS):
            faults.append(f"device is {self.device!r}; expected auto, {', '.join(_PROVIDERS)}")
        whole = isinstance(self.threads, int) and not isinstance(self.threads, bool)
        if self.threads is not None and (not whole or not 1 <= self.threads <= 1024):
            faults.append(f"threads is {self.threads!r}; expected None or a whole number from 1 to 1024")
        whole = isinstance(self.spin, int) and not isinstance(self.spin, bool)
        if self.spin is not None and (not whole or not 0 <= self.spin <= 10**6):
            faults.append(f"spin is {self.spin!r}; expected None or a whole number of microseconds from 0 to 1000000")
        if faults:
            raise ConfigError("the runtime cannot start", faults)


class Graph:
    """A loaded graph. `session` may be run by several threads at once.

    Args:
        directory: A sound model directory.
        settings: How to run it.

    Raises:
        DeviceError: The device is not there.
        ModelError: ONNX Runtime refuses the graph, or the graph does not keep its contract.
        ConfigError: The library of operators that was named cannot be used.
    """

    def __init__(self, directory: ModelDirectory, settings: SessionSettings) -> None:
        self.directory = directory
        self.device = _pick_device(settings.device)
        self.session, self.operators = _open_anyhow(directory.graph, settings, self.device)
        inputs = [*self.session.get_inputs(), *self.session.get_overridable_initializers()]
        self._types = {value.name: value.type for value in [*inputs, *self.session.get_outputs()]}
        names, routing = directory.names, directory.contract.routing
        self.window = routing.window
        self.evidence_width = len(directory.contract.table.modules) * routing.experts  # R
        faults = _faults(directory, self._types, self.window)
        faults += _unknown(directory, [value.name for value in self.session.get_inputs()])
        if not faults and not isinstance(_logits_shape(self.session, names.logits)[-1], int):
            faults.append("the size of the vocabulary is not in the graph")
        if faults:
            raise ModelError(f"{directory.graph} does not keep its contract: export again", faults)
        self.virtual_tokens = directory.contract.table.virtual_tokens  # before the prompt of a row with a skill
        self.pool = Pool()
        self._placed: tuple[npt.NDArray[Any], Any] | None = None
        self.has_positions = names.position_ids in self._types
        self.chooses_logits = LOGITS_FROM in self._types  # can leave out those of the first positions
        self.bank_dtype = self.dtype(BANK)
        self.cache_dtype = self.dtype(names.past_key % 0)
        self.logits_dtype = self.dtype(names.logits)
        self.vocabulary: int = _logits_shape(self.session, names.logits)[-1]

    def dtype(self, name: str) -> npt.DTypeLike:
        return _DTYPES[self._types[name]]

    def place(self, array: npt.NDArray[Any]) -> Any:
        """An OrtValue on the graph's device: the array's own memory on the host, else a copy.

        The last copy is kept for whoever comes with the same array object: nobody writes to what was placed.
        """
        placed = self._placed
        if placed is None or placed[0] is not array:
            placed = array, ort.OrtValue.ortvalue_from_numpy(array, self.device, 0)
            self._placed = placed
        return placed[1]

    @property
    def on_host(self) -> bool:
        """Whether the graph's memory is numpy's."""
        return self.device == "cpu"


def _unknown(directory: ModelDirectory, required: list[str]) -> list[str]:
    """Inputs that have to be fed and that this version does not know."""
    names = directory.names
    known = {names.input_ids, names.attention_mask, names.position_ids, BANK, SKILL_IDS, PAST_EVIDENCE, LOGITS_FROM}
    known |= {name % layer for name in (names.past_key, names.past_value) for layer in range(directory.layers)}
    return [f"input {name!r} is not known to this version" for name in required if name not in known]


def _pick_device(device: str) -> str:
    available = ort.get_available_providers()
    if device == "auto":
        return "cuda" if _PROVIDERS["cuda"] in available else "cpu"
    if _PROVIDERS[device] not in available:
        raise DeviceError(
            f"device {device!r} needs {_PROVIDERS[device]}; this onnxruntime has {', '.join(available)}: "
            f"pip install 'lime-edge[{device}]'"
        )
    return device


def _open_anyhow(graph: Path, settings: SessionSettings, device: str) -> tuple[Any, Operators]:
    """A session and what runs its operators: the graph's functions where "auto" finds a library that fails on it."""
    operators = choose(settings.operators, device)
    try:
        return open_session(graph, replace(settings, operators=operators.library), device), operators
    except ModelError as error:
        if settings.operators != AUTO or not operators.native:
            raise
        return open_session(graph, replace(settings, operators=None), device), Operators(reason=str(error))


def open_session(graph: Path, settings: SessionSettings, device: str = "cpu") -> Any:
    """Any graph's session, run as the runtime runs its own.

    Raises:
        ModelError: ONNX Runtime refuses the graph or the library of operators.
        ConfigError: The library of operators that was named cannot be used.
    """
    library = choose(settings.operators, device).library
    try:
        if settings.mapped is None:
            return ort.InferenceSession(str(graph), _options(settings, library), providers=[_PROVIDERS[device]])
        if device != "cpu":
            raise ConfigError(f"mapped={str(settings.mapped)!r} is for the CPU, and the device is {device}")
        return open_mapped(settings.mapped, graph, library, lambda: _options(settings, library))
    except ConfigError:
        raise
    except Exception as error:  # its exceptions have no common base below Exception
        raise ModelError(f"ONNX Runtime {ort.__version__} cannot load {graph}: {error}") from error


def _options(settings: SessionSettings, library: Path | None) -> Any:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = settings.threads or usable_cores() or 0
    spin = settings.spin if settings.spin is not None else SPIN if _bounds_spinning() else 0
    options.add_session_config_entry("session.intra_op.allow_spinning", "1" if spin else "0")
    options.add_session_config_entry("session.intra_op.spin_duration_us", str(spin))
    # Reshaping a large weight is free when it is run and takes a second copy of it when it is computed beforehand.
    options.add_session_config_entry("optimization.constant_folding_max_output_size_in_bytes", str(_FOLDED))
    if library is not None:
        options.register_custom_ops_library(str(library))
    return options


def _bounds_spinning() -> bool:
    """Whether onnxruntime spins for a time that it is told; before 1.26 it was for milliseconds, whatever one said."""
    return tuple(int(number) for number in ort.__version__.split(".")[:2]) >= (1, 26)


def _logits_shape(session: Any, name: str) -> list[Any]:
    """Sizes, or names of sizes."""
    shape: list[Any] = next(value.shape for value in session.get_outputs() if value.name == name)
    return shape


def _faults(directory: ModelDirectory, types: dict[str, str], window: int) -> list[str]:
    """What the graph lacks, and what it has in a type that numpy does not know."""
    names = directory.names
    state = [names.past_key, names.past_value, names.present_key, names.present_value]
    floats = [names.logits, BANK, *(name % layer for name in state for layer in range(directory.layers))]
    whole = [names.input_ids, names.attention_mask, SKILL_IDS]
    if window > 1:
        floats += [PAST_EVIDENCE, EVIDENCE]
    faults = [f"no input or output {name!r}" for name in [*floats, *whole] if name not in types]
    faults += [
        f"{name!r} is {types[name]}; expected float or float16"
        for name in floats
        if name in types and types[name] not in _DTYPES
    ]
    if not directory.shared_buffer:
        faults.append("past and present do not share a buffer; expected GroupQueryAttention: use int4 or fp32")
    return faults
