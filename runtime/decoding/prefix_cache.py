"""Positions that requests have made, kept for prompts that begin alike: a bounded store, shared by all threads.

A position is reused if its token and all before it are the same, each made by the same skill. A skill is identified by
what it holds (generation and weight of its parts), through a number that is never used again: neither by its name nor
by its row in the bank, which another skill may take over. The positions form a tree of blocks, so prompts store their
common beginning once. The blocks that were used least recently are freed first, the end of a prompt before its
beginning.
"""

from __future__ import annotations

import bisect
import itertools
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from lime_edge.common.strict_json import show
from lime_edge.errors import ConfigError
from lime_edge.runtime.model.session import Graph
from lime_edge.runtime.skills.registry import AppliedSkill

Ids = npt.NDArray[np.int64]
Array = npt.NDArray[np.floating]

DEFAULT_BYTES = 2**28
_MOST_BYTES = 2**44
_BLOCK = 32  # positions in a full block
_TOKEN = 16  # bytes of a token and its skill in a key
_NUMBERS = 1024  # skills and blends that are told apart at a time; an older one is new when it comes back


class Positions(NamedTuple):
    """What the graph made of n tokens in a row; never written to again."""

    values: Array  # [2 * layers, heads, n, size]: keys and values
    evidence: Array  # [n, R]: routing evidence, R = 0 if the graph's window is 1
    exact: int  # how many of them, from the first on, have the bits that reading a prompt gives


class Pin:
    """Keeps positions from being freed, as long as it exists."""


class _Block:
    """Up to 32 positions; the children of a full block continue it."""

    def __init__(self, key: bytes, made: Positions | None = None) -> None:
        self.key, self.made = key, made  # tokens and skills
        self.size = 0 if made is None else made.values.nbytes + made.evidence.nbytes + len(key)  # bytes
        self.children: dict[bytes, _Block] = {}
        self.sorted: list[bytes] = []  # keys of the children; the one most like a prompt is beside its place
        self.parent: Callable[[], _Block | None] = _nothing  # a weak reference
        self.pins: list[weakref.ref[Pin]] = []

    @property
    def pinned(self) -> bool:
        return any(pin() is not None for pin in self.pins)

    @property
    def exact(self) -> int:
        return 0 if self.made is None else self.made.exact

    @property
    def numbers(self) -> set[int]:
        """The skills that made its positions."""
        return set(np.frombuffer(self.key, np.int64)[1::2].tolist())

    def beside(self, key: bytes) -> list[_Block]:
        """The children before and after the place of a key: among them that with the longest common beginning."""
        place = bisect.bisect_left(self.sorted, key)
        near = [self.children.get(other) for other in self.sorted[max(0, place - 1) : place + 1]]
        return [child for child in near if child is not None]

    def adopt(self, child: _Block) -> None:
        child.parent = weakref.ref(self)
        bisect.insort(self.sorted, child.key)
        self.children[child.key] = child

    def disown(self, child: _Block) -> None:
        if self.children.get(child.key) is child:
            del self.children[child.key]
            place = bisect.bisect_left(self.sorted, child.key)
            del self.sorted[place : place + 1]


class PrefixCache:
    """The store of one runtime. Safe to use from several threads; the lock is never held while positions are copied.

    Args:
        graph: The graph that makes the positions.
        limit: Maximum number of bytes; 0 keeps only what is pinned. Pinned positions count, and are kept beyond it.
    """

    def __init__(self, graph: Graph, limit: int = DEFAULT_BYTES) -> None:
        directory, item = graph.directory, np.dtype(graph.cache_dtype).itemsize
        width = graph.evidence_width if graph.window > 1 else 0
        values = 2 * directory.layers * directory.kv_heads * directory.head_size
        self._position = values * item + 4 * width + _TOKEN  # bytes
        self._limit = limit
        self._root = _Block(b"")
        self._order: OrderedDict[_Block, None] = OrderedDict()  # used least recently first; children before parents
        self._count = itertools.count(1)
        self._numbers: dict[Any, int] = {}  # by content of a skill; used least recently first
        self._lock = threading.Lock()

    @property
    def size(self) -> int:
        """Bytes of all positions."""
        with self._lock:
            return sum(block.size for block in self._order)

    def held(self, pin: Pin | None) -> int:
        """Bytes of the positions that a pin keeps; 0 for None."""
        with self._lock:
            kept = [block for block in self._order if any(one() is pin for one in block.pins)]
            return 0 if pin is None else sum(block.size for block in kept)

    def view(self, skills: Iterable[AppliedSkill]) -> View:
        """The store as the rows of one lease see it."""
        with self._lock:
            return View(self, {applied.skill_id: self._number(applied) for applied in skills})

    def retain(self, generations: set[int]) -> None:
        """Forget all positions that a skill of another generation has made: none will ask for them again."""
        with self._lock:
            kept = {key: number for key, number in self._numbers.items() if generations.issuperset(key[1:])}
            gone = set(self._numbers.values()) - set(kept.values())
            self._numbers = kept
            for block in [block for block in self._order if block.numbers & gone] if gone else ():
                self._remove(block)

    def trim(self) -> None:
        """Free what is no longer pinned and beyond the limit."""
        with self._lock:
            self._trim()

    def pin(self) -> Pin:
        """A new pin; when it is gone, what it kept can be freed."""
        pin = Pin()
        weakref.finalize(pin, self._settle).atexit = False
        return pin

    def find(self, ids: Ids, numbers: Ids, exact: bool) -> tuple[int, list[Positions]]:
        """The longest stored beginning of a prompt.

        Args:
            ids: [S] tokens.
            numbers: [S] the number of the skill of each.
            exact: Only positions that have the bits of reading them.

        Returns:
            Its length, and the positions, of which the last may go on.
        """
        keys, parts, length = _keys(ids, numbers), [], 0
        with self._lock:
            path, node = [], self._root
            while (child := node.children.get(_cut(keys, length))) is not None:
                path.append(child)
                node, length = child, length + len(child.key) // _TOKEN
            rest = _cut(keys, length)
            alike = max(node.beside(rest), key=lambda child: _common(child.key, rest), default=None)
            if alike is not None and (more := _common(alike.key, rest)):
                path.append(alike)
                length += more
            self._touch(path)
            parts = [block.made for block in path if block.made is not None]
        if exact:
            length = min(length, _exact_length(parts))
        return length, parts

    def add(
        self, ids: Ids, numbers: Ids, exact: int, read: Callable[[int, int], Positions], pin: Pin | None = None
    ) -> None:
        """Store a prompt, or a prompt and its answer; what is there already is not copied again.

        Args:
            ids, numbers: As for `find`.
            exact: How many positions, from the first on, have the bits of reading them.
            read: Copies the positions from a start to a stop.
            pin: Keeps them, whatever the limit is.
        """
        most = len(ids) if pin is not None else min(len(ids), self._limit // self._position)
        keys, starts = _keys(ids[:most], numbers[:most]), range(0, most, _BLOCK)
        cuts = [_cut(keys, start) for start in starts]
        with self._lock:
            known = self._known(cuts, exact)
        new = list(zip(starts, cuts, strict=True))[len(known) :]
        blocks = [*known, *(_Block(cut, read(start, start + len(cut) // _TOKEN)) for start, cut in new)]
        with self._lock:
            if set(numbers.tolist()) <= {0, *self._numbers.values()}:  # otherwise the skill was unloaded meanwhile
                self._link(blocks, pin)
            self._trim()

    def _number(self, applied: AppliedSkill) -> int:
        """The number of a skill's content; 0 is the base."""
        if not applied.row:
            return 0
        number = self._numbers.pop(applied.content, None) or next(self._count)
        self._numbers[applied.content] = number
        if len(self._numbers) > _NUMBERS:
            del self._numbers[next(iter(self._numbers))]
        return number

    def _known(self, cuts: list[bytes], exact: int) -> list[_Block]:
        """The blocks that are stored already, as exact as those to be added."""
        found, node = [], self._root
        for start, cut in zip(itertools.count(0, _BLOCK), cuts, strict=False):
            covering = (child for child in node.beside(cut) if child.key.startswith(cut))  # the same, or a longer one
            child = next(covering, None)
            if child is None or child.exact < min(exact - start, len(cut) // _TOKEN):
                break
            found.append(child)
            node = child
        return found

    def _link(self, blocks: list[_Block], pin: Pin | None) -> None:
        """Put a path into the tree; of two blocks with the same tokens, the exact one counts."""
        path = [self._root]
        for block in blocks:
            parent = path[-1]
            child = parent.children.get(block.key)
            if child is None:
                self._order[block] = None
                parent.adopt(block)
                child = block
                self._drop_beginnings(parent, block.key)
            elif block.exact > child.exact:
                child.made = block.made
            if pin is not None:
                child.pins = [*(one for one in child.pins if one() is not None), weakref.ref(pin)]
            path.append(child)
        self._touch(path[1:])

    def _drop_beginnings(self, parent: _Block, key: bytes) -> None:
        """Remove the blocks that a longer one begins with."""
        for length in range(_TOKEN, len(key), _TOKEN):
            other = parent.children.get(key[:length])
            if other is not None and not other.pinned:
                self._remove(other)

    def _touch(self, path: list[_Block]) -> None:
        for block in reversed(path):
            self._order.move_to_end(block)

    def _remove(self, block: _Block) -> None:
        parent = block.parent()
        if parent is not None:
            parent.disown(block)
        self._order.pop(block, None)

    def _trim(self) -> None:
        excess = sum(block.size for block in self._order) - self._limit
        for block in list(self._order) if excess > 0 else ():
            if excess > 0 and not block.pinned:
                self._remove(block)
                excess -= block.size

    def _settle(self) -> None:
        """Trim, unless a lock is held, maybe by this thread, which a garbage collector interrupted: its owner does."""
        if self._lock.acquire(blocking=False):
            try:
                self._trim()
            finally:
                self._lock.release()


@dataclass(frozen=True)
class View:
    """The store as the rows of one lease see it, in which the graph's numbers of skills are unique."""

    store: PrefixCache
    numbers: Mapping[int, int]  # the graph's number of a skill -> that of its content

    def find(self, ids: Ids, skills: Ids, exact: bool) -> tuple[int, list[Positions]]:
        """As `PrefixCache.find`, with the graph's number of each token's skill."""
        return self.store.find(ids, self._of(skills), exact)

    def add(
        self, ids: Ids, skills: Ids, exact: int, read: Callable[[int, int], Positions], pin: Pin | None = None
    ) -> None:
        """As `PrefixCache.add`, with the graph's number of each token's skill."""
        self.store.add(ids, self._of(skills), exact, read, pin)

    def _of(self, skills: Ids) -> Ids:
        numbers = np.zeros_like(skills)
        for skill, number in self.numbers.items():
            numbers[skills == skill] = number
        return numbers


def checked_limit(value: Any) -> int:
    """The limit of a prefix cache in bytes.

    Raises:
        ConfigError: It is not a whole number in range.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _MOST_BYTES:
        raise ConfigError(
            f"prefix_cache is {show(value)}; expected whole bytes from 0, which keeps nothing, to {_MOST_BYTES}"
        )
    return value


def _keys(ids: Ids, numbers: Ids) -> bytes:
    """16 bytes for each token: itself, or the number of a picture's feature, and the number of its skill."""
    return np.stack([ids, numbers], -1).astype(np.int64).tobytes()


def _cut(keys: bytes, start: int) -> bytes:
    """The key of the block that begins at a token."""
    return keys[start * _TOKEN : (start + _BLOCK) * _TOKEN]


def _common(key: bytes, other: bytes) -> int:
    """Number of tokens that two keys have in common at the beginning."""
    count = min(len(key), len(other)) // _TOKEN
    same = np.frombuffer(key, np.int64, 2 * count) == np.frombuffer(other, np.int64, 2 * count)
    return count if same.all() else int(same.argmin()) // 2


def _exact_length(parts: list[Positions]) -> int:
    length = 0
    for part in parts:
        length += part.exact
        if part.exact < part.values.shape[2]:
            break
    return length


def _nothing() -> None:
    return None
