"""Buffers for keys and values: numpy's memory on the CPU, ONNX Runtime's on another device.

The path for other devices has not been run on a GPU.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from lime_edge.errors import ConfigError

from .session import Graph


class State:
    """Two buffers [B, heads, capacity, size] per layer, for keys and for values; each is both past and present.

    GroupQueryAttention appends in place, so one binding serves any number of runs. On the CPU all buffers share one
    piece of memory, which returns to the graph's pool when this object is destroyed.

    Args:
        graph: The graph, which defines the layers' shapes.
        rows: B.
        capacity: Positions in each row.

    Raises:
        ConfigError: There is not enough memory.
    """

    def __init__(self, graph: Graph, rows: int, capacity: int) -> None:
        directory = graph.directory
        self._graph = graph
        self._tail = (directory.kv_heads, capacity, directory.head_size)
        self._stride = math.prod(self._tail) * np.dtype(graph.cache_dtype).itemsize  # bytes of a row
        shape, count = (rows, *self._tail), 2 * directory.layers
        try:
            if graph.on_host:
                size = count * rows * self._stride
                memory = graph.pool.take(size)
                weakref.finalize(self, graph.pool.give, memory)
                self._host = memory[:size].view(graph.cache_dtype).reshape(count, *shape)
                self._pointers = [array.ctypes.data for array in self._host]
            else:
                kind = (graph.cache_dtype, graph.device, 0)
                self._device = [ort.OrtValue.ortvalue_from_shape_and_type(shape, *kind) for _ in range(count)]
                self._pointers = [value.data_ptr() for value in self._device]
        except MemoryError as error:
            raise ConfigError(f"no memory for {rows} x {capacity} positions: use fewer rows or tokens") from error

    def bind(self, io: Any, start: int, stop: int) -> None:
        """Bind rows start to stop of every buffer, as past and as present."""
        shape = (stop - start, *self._tail)
        for (past_name, present_name), base in zip(_names(self._graph), self._pointers, strict=True):
            where = (self._graph.device, 0, self._graph.cache_dtype, shape, base + start * self._stride)
            io.bind_input(past_name, *where)
            io.bind_output(present_name, *where)

    def copy(self, source: int, target: int, length: int, other: State | None = None) -> None:
        """Copy the first `length` positions of a row of another state, or of this one, to a row; on the CPU only."""
        origin = self if other is None else other
        self._host[:, target, :, :length] = origin._host[:, source, :, :length]

    def read(self, row: int, start: int, stop: int) -> npt.NDArray[Any]:
        """A copy of some positions of a row, [2 * layers, heads, stop - start, size]; on the CPU only."""
        copied: npt.NDArray[Any] = self._host[:, row, :, start:stop].copy()
        return copied

    def write(self, row: int, start: int, values: npt.NDArray[Any]) -> None:
        """Overwrite positions of a row from `start` on with what `read` returned; on the CPU only."""
        self._host[:, row, :, start : start + values.shape[2]] = values


def _names(graph: Graph) -> Iterator[tuple[str, str]]:
    """Names of past and present, for every layer's keys and values."""
    names = graph.directory.names
    for layer in range(graph.directory.layers):
        yield names.past_key % layer, names.present_key % layer
        yield names.past_value % layer, names.present_value % layer
