"""What is known of a skill package from its table of tensors alone: judged once for all skills of a model.

Knows nothing of manifests or of what the numbers are.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from functools import lru_cache

from lime_edge.common.digests import tensor_head

from .safetensors_file import Layout
from .vector_codec import SCALE, Batch, form_faults, in_batches

_TOGETHER = 32  # tensors hashed in one go


@dataclass(frozen=True, eq=False)
class LayoutFacts:
    """How to read packages of one layout.

    Attributes:
        faults: What is wrong with names, types and shapes.
        batches: How the vectors are dequantised; none if there are faults.
        values: How many numbers the vectors hold.
        experts: Every number of rows that a tensor has.
        kinds: What stands before the first point of the tensors' names.
        named: All names are ASCII; others have no digest.
    """

    faults: tuple[str, ...]
    batches: tuple[Batch, ...]
    values: int
    experts: frozenset[int]
    kinds: frozenset[str]
    named: bool
    _pieces: tuple[tuple[bytes, int, int], ...]  # what stands before every tensor in the digest, and its bytes

    def digest(self, head: bytes, body: memoryview) -> str:
        """SHA-256 (hex) of `head` and the tensors: `contract.tensor_digest` without making arrays of them."""
        digest = hashlib.sha256(head)
        for start in range(0, len(self._pieces), _TOGETHER):
            some = self._pieces[start : start + _TOGETHER]
            digest.update(b"".join([part for text, begin, end in some for part in (text, body[begin:end])]))
        return digest.hexdigest()


@lru_cache(maxsize=4)
def plan(layout: Layout) -> LayoutFacts:
    """The plan for a layout; packages of the same form share the layout, and so the plan."""
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
