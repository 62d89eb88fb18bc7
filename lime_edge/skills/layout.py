"""Facts about a tensor table, computed once and cached: all skills of one model have the same table.

They follow from names, types and shapes; no tensor is read.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from functools import lru_cache

from lime_edge.common.digests import tensor_head

from .safetensors_file import Layout
from .vector_codec import SCALE, Batch, form_faults, in_batches

_TOGETHER = 32  # tensors per hash update


@dataclass(frozen=True, eq=False)
class LayoutFacts:
    """What a tensor table says about every package that has it.

    Attributes:
        faults: Faults of names, types and shapes.
        batches: Vectors that are dequantised together; empty if there are faults.
        values: The number of values in all vectors.
        experts: The distinct row counts of the tensors.
        kinds: The distinct parts of tensor names before the first point.
        named: Whether all names are ASCII; without that there is no digest.
    """

    faults: tuple[str, ...]
    batches: tuple[Batch, ...]
    values: int
    experts: frozenset[int]
    kinds: frozenset[str]
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
    faults = tuple(form_faults(layout.entries))
    named = all(name.isascii() for name in layout.entries)
    pieces = []
    for name, (dtype, shape, begin) in sorted(layout.entries.items() if named else ()):
        pieces.append((tensor_head(name, dtype, shape)[0], begin, begin + shape[0] * shape[1] * dtype.itemsize))
    return LayoutFacts(
        faults,
        () if faults else in_batches(layout.entries),
        sum(math.prod(entry.shape) for name, entry in layout.entries.items() if not name.endswith(SCALE)),
        frozenset(entry.shape[0] for entry in layout.entries.values()),
        frozenset(name.partition(".")[0] for name in layout.entries),
        named,
        tuple(pieces),
    )
