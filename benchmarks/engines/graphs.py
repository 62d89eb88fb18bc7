"""Runs decoder graphs directly in onnxruntime: the model builder's unmodified graph, and ours with skills.

Past and present keys and values share one buffer, bound by address as the runtime binds them. A `Run` binds everything
in advance, so that calling it times the session's run and nothing else.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lime_edge.contract.names import BANK, LOGITS_FROM, SKILL_IDS
from lime_edge.runtime.model.session import SessionSettings, open_session

Array = npt.NDArray[Any]
Feeds = Mapping[str, Array]

CHUNK = 256  # prompt tokens in one run, as in the runtime
_ROUND = 64  # cache capacities are multiples of this, as in the runtime
_PAST, _PRESENT = "past_key_values", "present"
_DTYPES: dict[str, npt.DTypeLike] = {"tensor(float)": np.float32, "tensor(float16)": np.float16}


class Graph:
    """A session of a decoder graph from the model builder, adapted or not.

    Args:
        directory: Folder with model.onnx and genai_config.json.
        settings: Session settings as the runtime uses them.
    """

    def __init__(self, directory: Path, settings: SessionSettings) -> None:
        self.session = open_session(directory / "model.onnx", settings)
        config = json.loads((directory / "genai_config.json").read_text("utf-8"))
        self.head = int(config["model"]["decoder"]["head_size"])
        inputs = self.session.get_inputs()
        self.has_positions = any(value.name == "position_ids" for value in inputs)
        self.past = {  # name -> heads, size of a head, dtype
            value.name: (int(value.shape[1]), self.head, _DTYPES[value.type])
            for value in inputs
            if value.name.startswith(_PAST)
        }
        logits = next(value for value in self.session.get_outputs() if value.name == "logits")
        self.vocabulary, self.logits_dtype = int(logits.shape[-1]), _DTYPES[logits.type]
        optional = {value.name: value.type for value in self.session.get_overridable_initializers()}
        self.bank_dtype = _DTYPES[optional[BANK]] if BANK in optional else None  # None: a graph without skills

    def buffers(self, rows: int, positions: int) -> dict[str, Array]:
        """Empty keys and values by input name, each [rows, heads, capacity, size]."""
        capacity = -(-positions // _ROUND) * _ROUND
        return {
            name: np.zeros((rows, heads, capacity, size), dtype) for name, (heads, size, dtype) in self.past.items()
        }


class Run:
    """One run over some tokens of the first rows of a cache.

    Args:
        graph: The graph to run.
        buffers: From `Graph.buffers`.
        ids: [b, S] tokens of rows 0 .. b - 1.
        past: Number of positions that every row already holds.
        feeds: Further inputs: bank and skill ids, and -1 as `LOGITS_FROM` for the last position's logits only.
    """

    def __init__(self, graph: Graph, buffers: Feeds, ids: Array, past: int, feeds: Feeds) -> None:
        rows, count = ids.shape
        self._session, self._io = graph.session, graph.session.io_binding()
        positions = 1 if LOGITS_FROM in feeds else count
        self.logits: Array = np.empty((rows, positions, graph.vocabulary), graph.logits_dtype)
        inputs = {
            "input_ids": np.ascontiguousarray(ids, np.int64),
            "attention_mask": np.ones((rows, past + count), np.int64),
            **feeds,
        }
        if graph.has_positions:
            inputs["position_ids"] = np.tile(np.arange(past, past + count), (rows, 1))
        for name, array in inputs.items():
            _bind(self._io.bind_input, name, array)
        for name, array in buffers.items():
            _bind(self._io.bind_input, name, array[:rows])
            _bind(self._io.bind_output, name.replace(_PAST, _PRESENT), array[:rows])
        _bind(self._io.bind_output, "logits", self.logits)
        self._alive = (inputs, buffers)  # bound by address, so they must outlive the binding

    def __call__(self) -> float:
        """Run the graph and return the seconds it took. Repeated calls write the same positions."""
        began = time.perf_counter()
        self._session.run_with_iobinding(self._io)
        return time.perf_counter() - began


def prefill(graph: Graph, buffers: Feeds, ids: Sequence[int], feeds: Feeds) -> list[Run]:
    """The runs of one prompt in the first row of a cache, in chunks as the runtime makes them."""
    prompt = np.array([ids], np.int64)
    pieces = np.array_split(np.arange(len(ids)), -(-len(ids) // CHUNK))
    return [Run(graph, buffers, prompt[:, piece], int(piece[0]), feeds) for piece in pieces]


def decode(graph: Graph, ids: Sequence[int], rows: int, feeds: Feeds, tokens: int = 1) -> list[Run]:
    """Runs of one token for every row, at consecutive positions.

    The prompt runs first in one row, and its keys and values are copied to the other rows: the time of a step does
    not depend on their values.

    Args:
        graph: The graph to run.
        ids: The prompt of all rows.
        rows: Number of rows, B.
        feeds: Bank and skill ids [B or 1, 1], or nothing.
        tokens: Number of runs.
    """
    buffers = graph.buffers(rows, len(ids) + tokens)
    first = {name: array[:1] if name == SKILL_IDS else array for name, array in feeds.items()}
    for run in prefill(graph, buffers, ids, first):
        run()
    for array in buffers.values():
        array[1:] = array[:1]
    token = np.full((rows, 1), ids[-1], np.int64)
    return [Run(graph, buffers, token, len(ids) + at, feeds) for at in range(tokens)]


def greedy(graph: Graph, ids: Sequence[int], feeds: Feeds, count: int) -> list[int]:
    """Greedy continuation of a prompt by `count` tokens, in one row."""
    buffers, tokens = graph.buffers(1, len(ids) + count), []
    runs = prefill(graph, buffers, ids, feeds)
    while True:
        for run in runs:
            run()
        tokens.append(int(runs[-1].logits[0, -1].argmax()))
        if len(tokens) == count:
            return tokens
        runs = [Run(graph, buffers, np.array([tokens[-1:]]), len(ids) + len(tokens) - 1, feeds)]


def fed(rows: Array, ids: Array) -> dict[str, Array]:
    """Inputs for a bank and skill ids: one id for every row of the batch, or one for all."""
    return {BANK: rows, SKILL_IDS: ids[:, None].copy()}


def _bind(bind: Any, name: str, array: Array) -> None:
    bind(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)
