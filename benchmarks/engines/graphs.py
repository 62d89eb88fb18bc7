"""The builder's untouched graph and ours, one run at a time, as plainly as onnxruntime runs them.

The keys and values are one buffer, past and present alike, bound by address as the runtime binds
them. A `Run` has everything bound beforehand: calling it is the session's run and nothing else. Knows
nothing of rounds or rivals.
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
_ROUND = 64  # capacities are multiples of it, as in the runtime
_PAST, _PRESENT = "past_key_values", "present"
_DTYPES: dict[str, npt.DTypeLike] = {"tensor(float)": np.float32, "tensor(float16)": np.float16}


class Graph:
    """A session of any decoder graph that the builder made, adapted or not.

    Args:
        directory: With model.onnx and genai_config.json.
        settings: How the runtime would run it.
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
        self.bank_dtype = _DTYPES[optional[BANK]] if BANK in optional else None  # None: not one of ours

    def buffers(self, rows: int, positions: int) -> dict[str, Array]:
        """Empty keys and values by input name, each [rows, heads, capacity, size]."""
        capacity = -(-positions // _ROUND) * _ROUND
        return {
            name: np.zeros((rows, heads, capacity, size), dtype) for name, (heads, size, dtype) in self.past.items()
        }


class Run:
    """One run over some tokens of the first rows of a cache.

    Args:
        graph: What to run.
        buffers: From `Graph.buffers`.
        ids: [b, S] tokens of the rows 0 .. b - 1.
        past: How many positions every row holds already.
        feeds: More inputs: bank and skill ids; -1 as the first position of logits.
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
        self._alive = (inputs, buffers)  # bound by address

    def __call__(self) -> float:
        """Run; the seconds it took. Running it again writes the same positions again."""
        began = time.perf_counter()
        self._session.run_with_iobinding(self._io)
        return time.perf_counter() - began


def prefill(graph: Graph, buffers: Feeds, ids: Sequence[int], feeds: Feeds) -> list[Run]:
    """The runs of one prompt in the first row of a cache, in pieces as the runtime makes them."""
    prompt = np.array([ids], np.int64)
    pieces = np.array_split(np.arange(len(ids)), -(-len(ids) // CHUNK))
    return [Run(graph, buffers, prompt[:, piece], int(piece[0]), feeds) for piece in pieces]


def decode(graph: Graph, ids: Sequence[int], rows: int, feeds: Feeds, tokens: int = 1) -> list[Run]:
    """Runs of one token for every row, each at the position after the one before.

    The prompt is run first, in one row, and its keys and values copied to the others: the time of a
    step does not depend on what they are.

    Args:
        graph: What to run.
        ids: The prompt of all rows.
        rows: B.
        feeds: Bank and skill ids [B or 1, 1], or nothing.
        tokens: How many runs.
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
    """The likeliest tokens after a prompt, one row."""
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
    """Feeds of a bank with one skill id for every row of the batch (or one for all)."""
    return {BANK: rows, SKILL_IDS: ids[:, None].copy()}


def _bind(bind: Any, name: str, array: Array) -> None:
    bind(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)
