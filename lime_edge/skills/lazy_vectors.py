"""Packages whose vectors would not fit into a few megabytes: looked through piece by piece, dequantised one by one.

Dequantised int8 takes four times the file. For a skill of a small model that is nothing; for 256 MB from a stranger,
who may be refused a moment later, it is not taken before somebody asks for a vector. Knows nothing of manifests.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from lime_edge.contract.vector_kinds import Kind

from .vector_codec import SCALE, Array, Float32, Restored, dequantise, kind_of, scales_of, sound_numbers

KEPT = 2**22  # values that a package may hold to be dequantised at once: 16 MB
_PIECE = 2**16  # values of one row looked at in one go; whole blocks


class LazyVectors(Mapping[str, Float32]):
    """``<kind>.<module>`` -> read-only float32 [E, width], made anew at every look.

    Args:
        stored: All tensors of a sound package, scales included.
    """

    def __init__(self, stored: Mapping[str, Array]) -> None:
        self._stored = stored
        self.shapes = {name: array.shape for name, array in stored.items() if not name.endswith(SCALE)}

    def __getitem__(self, name: str) -> Float32:
        if name not in self.shapes:  # scales are no vectors
            raise KeyError(name)
        values = dequantise(self._stored[name], self._stored.get(name + SCALE))
        values.setflags(write=False)
        return values

    def __iter__(self) -> Iterator[str]:
        return iter(self.shapes)

    def __len__(self) -> int:
        return len(self.shapes)


def survey(stored: Mapping[str, Array]) -> Restored:
    """Peaks and soundness of tensors of sound form, as `vectors.restore` finds them; values on demand."""
    vectors = LazyVectors(stored)
    peaks: dict[Kind, float] = {}
    sound = True
    for name in vectors:
        peak, kind = peaks.get(kind_of(name), 0.0), kind_of(name)
        for values, scales in _pieces(stored[name], stored.get(name + SCALE)):
            sound = sound and sound_numbers(values, scales)
            with np.errstate(invalid="ignore"):  # what is not finite is reported by name
                peak = max(peak, float(np.abs(dequantise(values, scales)).max()))
        peaks[kind] = peak
    return Restored(vectors, peaks, sound)


def _pieces(array: Array, scales: Array | None) -> Iterator[tuple[Array, Array | None]]:
    """Parts of rows [1, n] with the scales of their blocks."""
    for row in range(len(array)):
        for start in range(0, array.shape[1], _PIECE):
            piece = array[row : row + 1, start : start + _PIECE]
            first = scales_of(start)
            blocks = slice(first, first + scales_of(piece.shape[1]))
            yield piece, None if scales is None else scales[row : row + 1, blocks]
