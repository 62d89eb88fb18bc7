"""`ModuleTable`: the adapted modules of a model, and the layout of their vectors in a row of the bank."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from lime_edge.common.digests import json_digest

from .vector_kinds import GAIN, NEUTRAL, PREFIX, Kind

ALIGNMENT = 64  # values; the block of every module in a bank row starts and ends at a multiple of it


@dataclass(frozen=True)
class Module:
    """One adapted module: its name in the backbone, H and r. In prompt tuning r is the number of virtual tokens."""

    name: str
    out_features: int
    rank: int

    def shape(self, kind: Kind, experts: int) -> tuple[int, int]:
        """Shape of one vector kind: [E, r] for the rank gate, [E, r * H] for a soft prefix, otherwise [E, H]."""
        widths = {"rank": self.rank, "prefix": self.rank * self.out_features}
        return (experts, widths.get(kind, self.out_features))


@dataclass(frozen=True)
class ModuleTable:
    """The adapted modules in graph order, and the position of each vector in a flat bank row.

    A row consists of E segments, one for each expert. A segment holds one block for each module, in table order. A
    block holds the vectors of `kinds_of`, in the order ``expert, gain, shift, rank``, and is padded to a multiple of
    `ALIGNMENT`. A skill with one expert uses only the first segment.
    """

    modules: tuple[Module, ...]
    experts: int
    kinds: tuple[Kind, ...] = ("expert", "gain", "shift")
    gain_only: frozenset[str] = frozenset()  # names of the modules with no other kind

    def kinds_of(self, name: str) -> tuple[Kind, ...]:
        """The kinds that a row holds for this module, in order."""
        return GAIN if name in self.gain_only else self.kinds

    @cached_property
    def offsets(self) -> dict[tuple[Kind, str], int]:
        """Offset in a segment, in values, of every (kind, module name)."""
        return self._layout[0]

    @cached_property
    def segment(self) -> int:
        """Size of a segment in values."""
        return self._layout[1]

    @property
    def virtual_tokens(self) -> int:
        """Number of virtual tokens that precede the prompt of a request with a skill."""
        return self.modules[0].rank if self.kinds == PREFIX else 0

    @cached_property
    def row_size(self) -> int:
        """P, the size of a bank row in values."""
        return self.experts * self.segment

    @cached_property
    def _layout(self) -> tuple[dict[tuple[Kind, str], int], int]:
        offsets: dict[tuple[Kind, str], int] = {}
        position = 0
        for module in self.modules:
            for kind in self.kinds_of(module.name):
                offsets[kind, module.name] = position
                position += module.shape(kind, 1)[1]
            position = math.ceil(position / ALIGNMENT) * ALIGNMENT
        return offsets, position

    def pack(self, tensors: Mapping[str, npt.NDArray[np.float32]]) -> npt.NDArray[np.float32]:
        """Copy vectors named ``<kind>.<module>``, each [E, width] or [1, width], into segments, [E or 1, segment].

        An absent kind gets its neutral value. The caller has validated the shapes.
        """
        segments = np.zeros((max((len(t) for t in tensors.values()), default=1), self.segment), np.float32)
        for module in self.modules:
            for kind in self.kinds_of(module.name):
                start = self.offsets[kind, module.name]
                target = segments[:, start : start + module.shape(kind, 1)[1]]
                target[:] = tensors.get(f"{kind}.{module.name}", NEUTRAL[kind])
        return segments

    def bank(
        self, skills: Iterable[Mapping[str, npt.NDArray[np.float32]]], dtype: npt.DTypeLike = np.float32
    ) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]]:
        """A bank of N skills, [N + 1, P], with the base in row 0, and the ids that select its rows, [N + 1].

        An id is the number of the row, negated if the skill has several experts.
        """
        packed = [np.zeros((1, 0), np.float32), *(self.pack(skill) for skill in skills)]
        rows = np.zeros((len(packed), self.row_size), dtype)
        for row, segments in zip(rows, packed, strict=True):
            row[: segments.size] = segments.ravel()
        return rows, np.array([-at if len(segments) > 1 else at for at, segments in enumerate(packed)])

    @cached_property
    def digest(self) -> str:
        """SHA-256 of names, H and r in order, which determine the shapes of a skill's vectors."""
        return json_digest([[m.name, m.out_features, m.rank] for m in self.modules])
