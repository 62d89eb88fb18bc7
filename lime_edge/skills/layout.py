"""Facts about a tensor table, computed once and cached: all skills of one model have the same table.

They follow from names, types and shapes; no tensor is read.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from lime_edge.common.digests import tensor_head

from .draft_table import CONTEXTS, DraftMeta, draft_form_faults
from .route import route_form_faults
from .safetensors_file import Entry, Layout
from .vector_codec import SCALE, Batch, form_faults, in_batches

_TOGETHER = 32  # tensors per hash update


@dataclass(frozen=True, eq=False)
class LayoutFacts:
    """What a tensor table says about every package that has it.

    Attributes:
        vectors: The entries of the vectors and their scales: all but the draft table and the route.
        faults: Faults of names, types and shapes.
        batches: Vectors that are dequantised together; empty if there are faults.
        values: The number of values in all vectors.
        experts: The distinct row counts of `vectors`.
        kinds: The distinct parts of their names before the first point.
        draft: What the manifest must say about the draft table; None if there is none.
        route: Whether there are centroids.
        named: Whether all names are ASCII; without that there is no digest.
    """

    vectors: Mapping[str, Entry]
    faults: tuple[str, ...]
    batches: tuple[Batch, ...]
    values: int
    experts: frozenset[int]
    kinds: frozenset[str]
    draft: DraftMeta | None
    route: bool
    named: bool
    _pieces: tuple[tuple[bytes, int, int], ...]  # line that the digest puts before a tensor; begin; end

    def digest(self, head: bytes, body: memoryview) -> str:
        """SHA-256 (hex) of `head` and the tensors; equals `tensor_digest`, but builds no arrays."""
        digest = hashlib.sha256(head)
        for start in range(0, len(self._pieces), _TOGETHER):
            some = self._pieces[start : start + _TOGETHER]
            digest.update(b"".join([part for text, begin, end in some for part in (text, body[begin:end])]))
        return digest.hexdigest()


@lru_cache(maxsize=4)
def layout_facts(layout: Layout) -> LayoutFacts:
    """The facts about a layout, cached: packages with the same tensor table share one `Layout` object."""
    draft, route, vectors = _apart(layout.entries)
    faults = (*form_faults(vectors), *draft_form_faults(draft), *route_form_faults(route))
    named = all(name.isascii() for name in layout.entries)
    pieces = []
    for name, (dtype, shape, begin) in sorted(layout.entries.items() if named else ()):
        pieces.append((tensor_head(name, dtype, shape)[0], begin, begin + shape[0] * shape[1] * dtype.itemsize))
    return LayoutFacts(
        vectors,
        faults,
        () if faults else in_batches(vectors),
        sum(math.prod(entry.shape) for name, entry in vectors.items() if not name.endswith(SCALE)),
        frozenset(entry.shape[0] for entry in vectors.values()),
        frozenset(name.partition(".")[0] for name in vectors),
        _meta(draft),
        bool(route),
        named,
        tuple(pieces),
    )


def _apart(entries: Mapping[str, Entry]) -> tuple[dict[str, Entry], dict[str, Entry], dict[str, Entry]]:
    """The entries of the draft table, of the route and of the vectors."""
    draft, route, vectors = dict[str, Entry](), dict[str, Entry](), dict[str, Entry]()
    parts = {"draft": draft, "route": route}
    for name, entry in entries.items():
        parts.get(name.partition(".")[0], vectors)[name] = entry
    return draft, route, vectors


def _meta(draft: Mapping[str, Entry]) -> DraftMeta | None:
    if CONTEXTS not in draft:
        return None
    entries, columns = draft[CONTEXTS].shape
    return {"order": columns + 1, "entries": entries}
