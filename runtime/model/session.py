"""The ONNX Runtime session of one model directory, with the names, types and shapes of its graph.

The CUDA path uses the same interface; it has not been run on a GPU.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from lime_edge.common.strict_json import show
from lime_edge.contract.names import BANK, EVIDENCE, FEATURES, LOGITS_FROM, PAST_EVIDENCE, SKILL_IDS, STATE
from lime_edge.errors import ConfigError, DeviceError, ModelError
from lime_edge.runtime.memory.pool import Pool
from lime_edge.runtime.native.operators import AUTO, Operators, choose

from .cores import usable_cores
from .directory import ModelDirectory
from .lifetime import refuse_fork, spare
from .load_errors import plain_reason
from .mapped_weights import open_mapped
from .pictures import Pictures

_DTYPES: dict[str, npt.DTypeLike] = {"tensor(float)": np.float32, "tensor(float16)": np.float16}
_FOLDED = 2**20  # maximum bytes of a constant that is folded when a session is created
#: Microseconds that an idle thread busy-waits: longer than the pause between two operators, so that threads sleep only
#: between tokens. A token takes four fifths of the time on an idle machine, and about a fifth more on a busy one.
SPIN = 20
_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


@dataclass(frozen=True)
class SessionSettings:
    """How ONNX Runtime runs the graph."""

    device: str = "auto"  # auto, cpu or cuda
    threads: int | None = None  # None: one per physical core that this process may use
    spin: int | None = None  # microseconds that an idle thread busy-waits; None: `SPIN` if ONNX Runtime can bound it
    operators: Path | Literal["auto"] | None = AUTO  # a library, the installed one, or None: the graph's functions
    mapped: Path | None = None  # folder of a prepacked copy: see mapped_weights.py
    verify: bool = False  # hash that copy

    def __post_init__(self) -> None:
        faults = []
        if not isinstance(self.device, str) or self.device not in ("auto", *_PROVIDERS):
            faults.append(f"device is {show(self.device)}; expected auto, {', '.join(_PROVIDERS)}")
        whole = isinstance(self.threads, int) and not isinstance(self.threads, bool)
        if self.threads is not None and (not whole or not 1 <= self.threads <= 1024):
            faults.append(f"threads is {show(self.threads)}; expected None or a whole number from 1 to 1024")
        whole = isinstance(self.spin, int) and not isinstance(self.spin, bool)
        if self.spin is not None and (not whole or not 0 <= self.spin <= 10**6):
            faults.append(f"spin is {show(self.spin)}; expected None or whole microseconds from 0 to 1000000")
        if faults:
            raise ConfigError("the runtime cannot start", faults)


class Graph:
    """A loaded graph. `session` may be run by several threads at once.

    Args:
        directory: A validated model directory.
        settings: How to run it.

    Raises:
        DeviceError: The device is not available.
        ModelError: ONNX Runtime refuses the graph, or the graph does not match its contract.
        ConfigError: The named library of operators cannot be used.
    """

    def __init__(self, directory: ModelDirectory, settings: SessionSettings) -> None:
        self.directory = directory
        self._process = os.getpid()
        self.device = _pick_device(settings.device)
        self.threads = settings.threads or usable_cores()  # None: ONNX Runtime decides
        self.session, self.operators = _open_with_fallback(directory.graph, settings, self.device)
        inputs = [*self.session.get_inputs(), *self.session.get_overridable_initializers()]
        self._types = {value.name: value.type for value in [*inputs, *self.session.get_outputs()]}
        names, routing = directory.names, directory.contract.routing
        self.window = routing.window
        self.evidence_width = len(directory.contract.table.modules) * routing.experts  # R
        faults = _faults(directory, self._types, self.window)
        faults += _unknown(directory, [value.name for value in self.session.get_inputs()])
        if not faults and not isinstance(_logits_shape(self.session, names.logits)[-1], int):
            faults.append("the graph does not state the size of the vocabulary")
        if faults:
            raise ModelError(f"{directory.graph} does not match its contract: export again", faults)
        self.virtual_tokens = directory.contract.table.virtual_tokens  # before the prompt of a row with a skill
        self.pool = Pool()
        self._placed: tuple[npt.NDArray[Any], Any] | None = None
        self.has_positions = names.position_ids in self._types
        self.rotary_3d = _rank(self.session, names.position_ids) == 3  # positions in time, rows and columns
        self.pictures = Pictures() if FEATURES in self._types else None  # what requests show to it
        self.chooses_logits = LOGITS_FROM in self._types  # can skip the logits of the first positions
        self.bank_dtype = self.dtype(BANK)
        self.cache_dtype = self.dtype(names.past_key % 0)
        self.logits_dtype = self.dtype(names.logits)
        self.state_width = _width(self.session, STATE)  # D; 0 if the graph does not return states
        self.vocabulary: int = _logits_shape(self.session, names.logits)[-1]

    def dtype(self, name: str) -> npt.DTypeLike:
        return _DTYPES[self._types[name]]

    def type_of(self, name: str) -> str:
        """ONNX Runtime's name of the type of an input or output; empty if there is none of that name."""
        found: str = self._types.get(name, "")
        return found

    def refuse_fork(self) -> None:
        """Raises DeviceError: this process is a forked child of that which loaded the graph."""
        refuse_fork(self._process)

    def place(self, array: npt.NDArray[Any]) -> Any:
        """An OrtValue on the graph's device: the array's own memory on the CPU, otherwise a copy.

        The last copy is cached by the identity of the array, which must not be written to once it is placed.
        """
        placed = self._placed
        if placed is None or placed[0] is not array:
            placed = array, ort.OrtValue.ortvalue_from_numpy(array, self.device, 0)
            self._placed = placed
        return placed[1]

    @property
    def on_host(self) -> bool:
        """Whether the graph runs on the CPU, in numpy's memory."""
        return self.device == "cpu"


def _unknown(directory: ModelDirectory, required: list[str]) -> list[str]:
    """Faults: required inputs that this version cannot feed."""
    names = directory.names
    known = {names.input_ids, names.attention_mask, names.position_ids, BANK, SKILL_IDS, PAST_EVIDENCE, LOGITS_FROM}
    known |= {name % layer for name in (names.past_key, names.past_value) for layer in range(directory.layers)}
    return [f"input {name!r} is unknown to this version" for name in required if name not in known]


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


def _open_with_fallback(graph: Path, settings: SessionSettings, device: str) -> tuple[Any, Operators]:
    """A session and what runs its operators. With "auto", fall back to the graph's functions if the library fails."""
    operators = choose(settings.operators, device)
    try:
        return open_session(graph, replace(settings, operators=operators.library), device), operators
    except ModelError as error:
        if settings.operators != AUTO or not operators.native:
            raise
        return open_session(graph, replace(settings, operators=None), device), Operators(reason=str(error))


def open_session(graph: Path, settings: SessionSettings, device: str = "cpu") -> Any:
    """A session for any graph, configured as for the runtime's own.

    Raises:
        ModelError: ONNX Runtime refuses the graph or the library of operators.
        ConfigError: The named library of operators cannot be used.
    """
    library = choose(settings.operators, device).library
    session = _opened(graph, settings, library, device)
    spare(session)
    return session


def _opened(graph: Path, settings: SessionSettings, library: Path | None, device: str) -> Any:
    try:
        if settings.mapped is None:
            return ort.InferenceSession(str(graph), _options(settings, library), providers=[_PROVIDERS[device]])
        if device != "cpu":
            raise ConfigError(f"mapped={str(settings.mapped)!r} works on the CPU only; the device is {device}")
        return open_mapped(settings.mapped, graph, library, lambda: _options(settings, library), settings.verify)
    except ConfigError:
        raise
    except Exception as error:  # onnxruntime's exceptions share no base below Exception
        raise ModelError(f"ONNX Runtime {ort.__version__} cannot load {graph}: {plain_reason(error)}") from error


def _options(settings: SessionSettings, library: Path | None) -> Any:
    options = ort.SessionOptions()
    options.log_severity_level = 4  # what goes wrong is raised; the log would repeat it with C++ signatures
    options.intra_op_num_threads = settings.threads or usable_cores() or 0
    spin = settings.spin if settings.spin is not None else SPIN if _bounds_spinning() else 0
    options.add_session_config_entry("session.intra_op.allow_spinning", "1" if spin else "0")
    options.add_session_config_entry("session.intra_op.spin_duration_us", str(spin))
    # Reshaping a large weight costs nothing at run time; folding it into a constant would store the weight twice.
    options.add_session_config_entry("optimization.constant_folding_max_output_size_in_bytes", str(_FOLDED))
    if library is not None:
        options.register_custom_ops_library(str(library))
    return options


def _bounds_spinning() -> bool:
    """Whether onnxruntime respects the spin duration; before 1.26 it always spins for milliseconds."""
    return tuple(int(number) for number in ort.__version__.split(".")[:2]) >= (1, 26)


def _logits_shape(session: Any, name: str) -> list[Any]:
    """The shape of an output: sizes, or names of dynamic sizes."""
    shape: list[Any] = next(value.shape for value in session.get_outputs() if value.name == name)
    return shape


def _width(session: Any, name: str) -> int:
    """The last size of an output; 0 if there is none of that name, or its size is not fixed."""
    found = next((value.shape[-1] for value in session.get_outputs() if value.name == name), 0)
    return found if isinstance(found, int) else 0


def _rank(session: Any, name: str) -> int:
    """Number of dimensions of an input; 0 if there is none of that name."""
    return next((len(value.shape) for value in session.get_inputs() if value.name == name), 0)


def _faults(directory: ModelDirectory, types: dict[str, str], window: int) -> list[str]:
    """Faults: missing inputs and outputs, and those of an unsupported type."""
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
