"""Binds the inputs and outputs of ONNX Runtime to arrays, which are reused while their shapes stay the same.

On the CPU, ONNX Runtime uses numpy's memory directly, so a decoding step costs only a few writes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from lime_edge.contract.names import BANK
from lime_edge.errors import ModelError

from .kv_buffers import State
from .lifetime import run_bound
from .session import Graph

Array = npt.NDArray[Any]


class Binding:
    """Bound inputs and outputs for a range of rows of a batch.

    Args:
        graph: The graph to run.
        bank: The bank, placed on the graph's device.
        state: The keys and values of the batch.
        start, stop: The range of rows.
    """

    def __init__(self, graph: Graph, bank: Any, state: State, start: int, stop: int) -> None:
        self._graph = graph
        self._io = graph.session.io_binding()
        self._inputs: dict[str, Array] = {}
        self._outputs: dict[str, Array] = {}
        self._bank: Any = None
        state.bind(self._io, start, stop)
        self.use_bank(bank)

    def use_bank(self, bank: Any) -> None:
        """Let the next runs read this bank."""
        if bank is not self._bank:
            self._io.bind_ortvalue_input(BANK, bank)
            self._bank = bank

    def input(self, name: str, shape: tuple[int, ...], dtype: npt.DTypeLike) -> Array:
        """The array that the next run reads as this input; the caller fills it. Reused while the shape is the same."""
        array = self._inputs.get(name)
        if array is None or array.shape != shape:
            array = self._inputs[name] = np.empty(shape, dtype)
            self._bind(name, array)
        return array

    def feeds(self, name: str) -> bool:
        """Whether the next run reads an array for this input."""
        return name in self._inputs

    def feed(self, name: str, values: Array) -> None:
        """Copy values into an input of the next run."""
        self.input(name, values.shape, values.dtype)[...] = values

    def output(self, name: str, shape: tuple[int, ...], dtype: npt.DTypeLike) -> Array:
        """The array that the next run writes this output to. Reused while the shape is the same."""
        array = self._outputs.get(name)
        if array is None or array.shape != shape:
            array = self._outputs[name] = np.empty(shape, dtype)
            self._io.bind_output(name, "cpu", 0, array.dtype.type, shape, array.ctypes.data)
        return array

    def run(self) -> None:
        """Run the graph.

        Raises:
            ModelError: ONNX Runtime failed.
        """
        if not self._graph.on_host:  # binding copied the arrays to the device: copy the new values
            for name, array in self._inputs.items():
                self._bind(name, array)
        try:
            run_bound(self._graph.session, self._io)
        except Exception as error:  # onnxruntime's own exceptions have no common base
            raise ModelError(f"ONNX Runtime could not run the graph: {error}") from error

    def _bind(self, name: str, array: Array) -> None:
        self._io.bind_input(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)
