"""What ONNX Runtime reads and writes in one run: arrays that stay bound from run to run while their shapes stay.

On the host numpy's memory is used as it is, so that a token costs a few writes. Knows nothing of tokens or skills.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from lime_edge.contract.names import BANK
from lime_edge.errors import ModelError

from .kv_buffers import State
from .session import Graph

Array = npt.NDArray[Any]


class Binding:
    """Inputs and outputs of some rows of a batch.

    Args:
        graph: What to run.
        bank: On the graph's device.
        state: Whose keys and values.
        start, stop: Which rows of it.
    """

    def __init__(self, graph: Graph, bank: Any, state: State, start: int, stop: int) -> None:
        self._graph = graph
        self._io = graph.session.io_binding()
        self._inputs: dict[str, Array] = {}
        self._outputs: dict[str, Array] = {}
        state.bind(self._io, start, stop)
        self._io.bind_ortvalue_input(BANK, bank)

    def input(self, name: str, shape: tuple[int, ...], dtype: npt.DTypeLike) -> Array:
        """What the next run reads as this input, to be filled; the same memory while the shape is the same."""
        held = self._inputs.get(name)
        if held is None or held.shape != shape:
            held = self._inputs[name] = np.empty(shape, dtype)
            self._bind(name, held)
        return held

    def feed(self, name: str, values: Array) -> None:
        """Let the next run read these values."""
        self.input(name, values.shape, values.dtype)[...] = values

    def output(self, name: str, shape: tuple[int, ...], dtype: npt.DTypeLike) -> Array:
        """Where the next run writes this output; the same memory while the shape is the same."""
        held = self._outputs.get(name)
        if held is None or held.shape != shape:
            held = self._outputs[name] = np.empty(shape, dtype)
            self._io.bind_output(name, "cpu", 0, held.dtype.type, shape, held.ctypes.data)
        return held

    def run(self) -> None:
        """Run the graph.

        Raises:
            ModelError: It failed.
        """
        if not self._graph.on_host:  # a device took its copies when they were bound
            for name, array in self._inputs.items():
                self._bind(name, array)
        try:
            self._graph.session.run_with_iobinding(self._io)
        except Exception as error:  # onnxruntime's own exceptions have no common base
            raise ModelError(f"ONNX Runtime could not run the graph: {error}") from error

    def _bind(self, name: str, array: Array) -> None:
        self._io.bind_input(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)
