"""Vectors of large packages: validated piece by piece, dequantised only when accessed.

Dequantised int8 takes four times the memory of the file. For a small skill that does not matter; for an untrusted file
of 256 MB, which may be refused a moment later, the memory is not spent before a vector is needed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from lime_edge.contract.vector_kinds import Kind

from .vector_codec import SCALE, Array, Float32, Restored, dequantise, kind_of, scales_of, valid_numbers

EAGER_LIMIT = 2**22  # a package with more values is dequantised lazily; 16 MB of float32
_PIECE = 2**16  # values of one row validated at a time; a whole number of blocks


class LazyVectors(Mapping[str, Float32]):
    """``<kind>.<module>`` -> read-only float32 [E, width], dequantised anew on every access.

    Args:
        stored: All tensors of a valid package, scales included.
    """

    def __init__(self, stored: Mapping[str, Array]) -> None:
        self._stored = stored
        self.shapes = {name: array.shape for name, array in stored.items() if not name.endswith(SCALE)}

    def __getitem__(self, name: str) -> Float32:
        if name not in self.shapes:  # `_stored` also has the scales, which are not vectors
            raise KeyError(name)
        values = dequantise(self._stored[name], self._stored.get(name + SCALE))
        values.setflags(write=False)
        return values

    def __iter__(self) -> Iterator[str]:
        return iter(self.shapes)

    def __len__(self) -> int:
        return len(self.shapes)


def survey(stored: Mapping[str, Array]) -> Restored:
    """Like `decode_vectors` for well-formed tensors, but the vectors are dequantised on access."""
    vectors = LazyVectors(stored)
    peaks: dict[Kind, float] = {}
    valid = True
    for name in vectors:
        peak, kind = peaks.get(kind_of(name), 0.0), kind_of(name)
        for values, scales in _pieces(stored[name], stored.get(name + SCALE)):
            valid = valid and valid_numbers(values, scales)
            with np.errstate(invalid="ignore"):  # non-finite values are reported by name later
                peak = max(peak, float(np.abs(dequantise(values, scales)).max()))
        peaks[kind] = peak
    return Restored(vectors, peaks, valid)


def _pieces(array: Array, scales: Array | None) -> Iterator[tuple[Array, Array | None]]:
    """Parts of rows, [1, n], each with the scales of its blocks."""
    for row in range(len(array)):
        for start in range(0, array.shape[1], _PIECE):
            piece = array[row : row + 1, start : start + _PIECE]
            first = scales_of(start)
            blocks = slice(first, first + scales_of(piece.shape[1]))
            yield piece, None if scales is None else scales[row : row + 1, blocks]
