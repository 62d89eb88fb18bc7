"""The KV cache of requests that run together, and how the graph runs on it.

Each row has its own length. Prompts run row by row: GroupQueryAttention accepts several tokens after a past for one
row only, and a row then computes exactly what it would alone. Single tokens run for all rows at once. The cache stores
the token and the skill of every position, so a prefix is reused only if the new prompt would have produced the same:
from another row, or from what requests before have left in the store of prefix_cache.py. A row that no request uses is
empty, so a skill's number means the same in all rows.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from lime_edge.contract.names import EVIDENCE, LOGITS_FROM, PAST_EVIDENCE, SKILL_IDS, STATE
from lime_edge.errors import ConfigError
from lime_edge.runtime.model.io_binding import Binding
from lime_edge.runtime.model.kv_buffers import State
from lime_edge.runtime.model.session import Graph

from .picture_inputs import feed_tokens, positions_in_space
from .prefix_cache import Pin, Positions, View

Ids = npt.NDArray[np.int64]
Array = npt.NDArray[np.floating]

CHUNK = 256  # prompt tokens in one run; fewer if the vocabulary is large
_LOGITS = 2**24  # maximum logits in one run, [1, CHUNK, V], if the graph computes all of them
_LAST = np.array([-2])  # two positions: for a single one ONNX Runtime uses another kernel
_ALL = np.array([0])
_ROUND = 64  # capacities are multiples of this
_BINDINGS = 16  # ranges of rows that stay bound; 2 if the graph computes all logits, which take much memory


class Cache:
    """Keys, values and routing evidence of B rows.

    A prompt is cut into runs of at least two tokens where possible. Their results are the same bit for bit wherever
    they are cut; a run of one token uses another kernel and differs by about 1e-5.

    Args:
        graph: The graph to run.
        bank: [N, P], pinned by the caller while this cache exists.
        rows: B.
        capacity: Number of positions that the longest row needs.
        view: What earlier requests have made, and where these rows leave theirs; None: nowhere. On the CPU only.

    Attributes:
        lengths: Number of positions of each row.
        views: The view of each row.

    Raises:
        ConfigError: The capacity exceeds the model's context length, or there is not enough memory.
    """

    def __init__(self, graph: Graph, bank: Array, rows: int, capacity: int, view: View | None = None) -> None:
        directory = graph.directory
        if capacity > directory.context_length:
            raise ConfigError(f"{capacity} positions are needed; the context has {directory.context_length}")
        self._graph = graph
        self.use_bank(bank)
        self.rows = rows
        self.capacity = min(-(-capacity // _ROUND) * _ROUND, directory.context_length)
        self.lengths = [0] * rows
        self._exact = [0] * rows  # positions of each row, from the first on, that were made in runs of at least two
        self.views = [view] * rows
        self._state = State(graph, rows, self.capacity)
        self._ids: Ids = np.zeros((rows, self.capacity), np.int64)  # [B, cap]
        self._skills: Ids = np.zeros((rows, self.capacity), np.int64)  # [B, cap] skill of every position
        width = graph.evidence_width if graph.window > 1 else 0
        self._evidence: Array = np.zeros((rows, self.capacity, width), np.float32)  # [B, cap, R]
        self._positions: Ids = np.arange(self.capacity)
        self._bound: OrderedDict[tuple[int, int], Binding] = OrderedDict()  # by rows; used least recently first
        self.states: Array | None = None  # [b, D] of the last token of each row that ran last, if they are asked for
        self.asks_for_states = False

    def use_bank(self, bank: Array) -> None:
        """Run with this bank from now on; what rows have made stays as it is."""
        self._bank_array, self._bank = bank, self._graph.place(bank)

    def prefill(self, row: int, ids: Ids, skills: Ids) -> tuple[Array, int]:
        """Make a row hold exactly this prompt; reuses what it can.

        Args:
            row: Number of the row.
            ids, skills: [S], S >= 1: the tokens and the skill of each.

        Returns:
            The logits after the last token [V] (valid until the next run), and the number of positions reused from
            this or another row.
        """
        for found in self.prefill_steps(row, ids, skills):
            last = found
        return last

    def prefill_steps(self, row: int, ids: Ids, skills: Ids, exact: bool = False) -> Iterator[tuple[Array, int]]:
        """As `prefill`, but yields after every run of the graph; the last one yields the result.

        With `exact`, nothing is reused that was made in a run of one token: the result has the bits of a full read.
        """
        reused = self.begin(row, ids, skills, exact)
        while self.lengths[row] < len(ids):
            yield self.read(row, ids, skills), reused

    def begin(self, row: int, ids: Ids, skills: Ids, exact: bool = False) -> int:
        """Let a row hold the beginning of a prompt that is known already; returns its length, at most S - 2."""
        return self._reuse(row, ids, skills, exact)

    def read(self, row: int, ids: Ids, skills: Ids, most: int = CHUNK) -> Array:
        """Run the next piece of a prompt.

        The row is valid after each of them: it holds the tokens that have run. After the last, the store has them too.

        Args:
            row: The row, which holds the tokens before.
            ids, skills: [S], the whole prompt.
            most: Maximum number of tokens, at least 4.

        Returns:
            The logits after the last token that ran, [V], valid until the next run.
        """
        start = self.lengths[row]
        most = min(
            most, CHUNK if self._graph.chooses_logits else max(32, min(CHUNK, _LOGITS // self._graph.vocabulary))
        )
        pieces = -(-(len(ids) - start) // most)
        piece = slice(start, start - (start - len(ids)) // pieces)  # sizes differ by at most one
        logits: Array = self._run(row, row + 1, ids[None, piece], skills[None, piece], _LAST)[0, -1]
        if self.lengths[row] == len(ids):
            self.remember(row)
        return logits

    def extend(self, row: int, ids: Ids, skills: Ids) -> Array:
        """Append tokens [S] to one row; returns the logits after each, [S, V], valid until the next run."""
        logits: Array = self._run(row, row + 1, ids[None], skills[None])[0]
        return logits

    def step(self, ids: Ids, skills: Ids, start: int = 0) -> Array:
        """Append one token [b] to each row from `start` on; returns logits [b, V], valid until the next run."""
        logits: Array = self._run(start, start + len(ids), ids[:, None], skills[:, None])[:, 0]
        return logits

    def rewind(self, row: int, length: int) -> None:
        """Shorten a row to its first `length` positions."""
        self.lengths[row], self._exact[row] = length, min(length, self._exact[row])

    def remember(self, row: int, pin: Pin | None = None) -> None:
        """Leave the positions of a row to later requests, as long as the store keeps them, or the pin exists."""
        view = self.views[row] if self._graph.on_host else None
        if view is None:
            return
        length, exact = self.lengths[row], self._exact[row]

        def read(start: int, stop: int) -> Positions:
            evidence = self._evidence[row, start:stop].copy()
            return Positions(self._state.read(row, start, stop), evidence, max(0, min(exact, stop) - start))

        view.add(self._ids[row, :length], self._skills[row, :length], exact, read, pin)

    def copy_row(self, source: int, target: int) -> None:
        """Let a row that no request uses hold what another one holds; on the CPU only."""
        self._copy(source, target, self.lengths[source], self)
        self.views[target] = self.views[source]

    def clear(self, row: int) -> None:
        """Forget all positions of a row."""
        self.lengths[row] = self._exact[row] = 0
        self.views[row] = None

    def grown(self, rows: int, capacity: int) -> Cache:
        """Another cache with the same rows, as far as it has them, for instead of this one; on the CPU only.

        Raises:
            ConfigError: As when a cache is made; this one stays valid.
        """
        made = Cache(self._graph, self._bank_array, rows, capacity)
        for row, length in enumerate(self.lengths[:rows]):
            made._copy(row, row, length, self)
            made.views[row] = self.views[row]
        return made

    def _reuse(self, row: int, ids: Ids, skills: Ids, exact: bool) -> int:
        """Make a row begin with what another row or the store has of a prompt; returns how much that is."""
        sources = range(self.rows) if self._graph.on_host else [row]  # rows can be copied on the CPU only
        reused, _, source = max((self._common(other, ids, skills, exact), other == row, other) for other in sources)
        view = self.views[row] if self._graph.on_host else None
        if view is not None and reused < len(ids) - 2:
            length, parts = view.find(ids[:-2], skills[:-2], exact)
            if length > reused:
                self._restore(row, ids[:length], skills[:length], parts)
                return length
        if source != row:
            self._copy(source, row, reused, self)
        self.rewind(row, reused)
        return reused

    def _restore(self, row: int, ids: Ids, skills: Ids, parts: list[Positions]) -> None:
        """Make a row hold the first positions [n] of the store's parts."""
        start, count, exact = 0, len(ids), True
        self.lengths[row] = self._exact[row] = 0
        for part in parts:
            made = slice(start, min(start + part.values.shape[2], count))
            size = made.stop - start
            self._state.write(row, start, part.values[:, :, :size])
            self._evidence[row, made] = part.evidence[:size]
            self._exact[row] += min(part.exact, size) if exact else 0
            exact, start = exact and part.exact >= size, made.stop
        self._ids[row, :count], self._skills[row, :count] = ids, skills
        self.lengths[row] = count

    def _common(self, row: int, ids: Ids, skills: Ids, exact: bool) -> int:
        """Length of the prefix that a row shares with a prompt; leaves at least two tokens to run."""
        most = max(0, min(self._exact[row] if exact else self.lengths[row], len(ids) - 2))
        same = (self._ids[row, :most] == ids[:most]) & (self._skills[row, :most] == skills[:most])
        return most if same.all() else int(same.argmin())

    def _copy(self, source: int, target: int, length: int, other: Cache) -> None:
        """Let a row hold the first positions of a row of another cache, or of this one."""
        self._state.copy(source, target, length, other._state)
        self._ids[target, :length] = other._ids[source, :length]
        self._skills[target, :length] = other._skills[source, :length]
        self._evidence[target, :length] = other._evidence[source, :length]
        self.lengths[target], self._exact[target] = length, min(length, other._exact[source])

    def _run(self, start: int, stop: int, ids: Ids, skills: Ids, wanted: Ids = _ALL) -> Array:
        """Append [b, S] tokens to rows start to stop; returns logits [b, S, V], or only of the last two positions."""
        graph, (rows, count) = self._graph, ids.shape
        past = self.lengths[start:stop]
        if max(past) + count > self.capacity:
            raise ConfigError(f"the KV cache of {self.capacity} positions is full: ask for fewer tokens")
        binding = self._binding(start, stop)
        self._feed(binding, start, ids, skills)
        returned = count  # positions with logits
        if graph.chooses_logits:
            binding.feed(LOGITS_FROM, wanted)
            returned = count if wanted is _ALL else min(2, count)
        logits = binding.output(graph.directory.names.logits, (rows, returned, graph.vocabulary), graph.logits_dtype)
        evidence = None
        if graph.window > 1:
            binding.feed(PAST_EVIDENCE, self._past_evidence(start, past))
            evidence = binding.output(EVIDENCE, (rows, count, graph.evidence_width), graph.dtype(EVIDENCE))
        states = None
        if self.asks_for_states:
            states = binding.output(STATE, (rows, count, graph.state_width), graph.dtype(STATE))
        binding.run()
        self.states = None if states is None else states[:, -1].astype(np.float32)
        for row, length in enumerate(past, start):
            made = slice(length, length + count)
            self._ids[row, made], self._skills[row, made] = ids[row - start], skills[row - start]
            if evidence is not None:
                self._evidence[row, made] = evidence[row - start]
            if count > 1 and self._exact[row] == length:
                self._exact[row] += count
            self.lengths[row] += count
        return logits

    def _feed(self, binding: Binding, start: int, ids: Ids, skills: Ids) -> None:
        """Set the inputs of a run: tokens [b, S], their skills, the attention mask and positions."""
        names, (rows, count) = self._graph.directory.names, ids.shape
        past = self.lengths[start : start + rows]
        feed_tokens(self._graph, binding, ids)
        binding.feed(SKILL_IDS, skills)
        before = np.array(past)[:, None]  # [b, 1]
        longest = max(past) + count
        if count == 1 and min(past) > 0:  # a padded mask keeps its shape for many steps, so it is rarely bound again
            longest = min(-(-longest // _ROUND) * _ROUND, self.capacity)
        mask = binding.input(names.attention_mask, (rows, longest), np.int64)
        np.less(self._positions[:longest], before + count, out=mask)
        if self._graph.has_positions:
            positions = before + self._positions[:count]  # [b, S]
            if self._graph.rotary_3d:
                known = [self._ids[start + row, :length] for row, length in enumerate(past)]
                positions = positions_in_space(self._graph, known, ids, positions)
            binding.feed(names.position_ids, positions)

    def _past_evidence(self, start: int, past: list[int]) -> Array:
        """Routing evidence of each row's last n - 1 tokens, [b, n - 1, R + 1]; 0 before the first token."""
        before = np.array(past)[:, None] + np.arange(1 - self._graph.window, 0)  # [b, n - 1] positions
        exists = (before >= 0)[..., None]
        rows = np.arange(start, start + len(past))[:, None]
        known = np.where(exists, self._evidence[rows, before.clip(0)], 0)
        return np.concatenate([known, exists], axis=-1, dtype=self._graph.dtype(PAST_EVIDENCE))

    def _binding(self, start: int, stop: int) -> Binding:
        """The binding of these rows; those used last are kept."""
        binding = self._bound.get((start, stop))
        if binding is None:
            binding = self._bound[start, stop] = Binding(self._graph, self._bank, self._state, start, stop)
            if len(self._bound) > (_BINDINGS if self._graph.chooses_logits else 2):
                self._bound.popitem(last=False)
        self._bound.move_to_end((start, stop))
        binding.use_bank(self._bank)
        return binding
