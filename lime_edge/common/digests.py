"""SHA-256 digests of JSON values and named tensors that do not depend on platform, key order or tensor order."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt


def canonical_json(value: Any) -> bytes:
    """Encode a JSON value in its canonical form: sorted keys, no spaces, UTF-8, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def json_digest(value: Any) -> str:
    """SHA-256 (hex) of the canonical JSON of a value."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


def tensor_digest(tensors: Iterable[tuple[str, npt.NDArray[Any]]], head: bytes = b"") -> str:
    """SHA-256 (hex) of `head` and named tensors; the order of the tensors does not matter.

    Tensors are sorted by name. Each contributes ``[name, dtype, shape]`` as canonical JSON, a newline and its bytes in
    little-endian C order.
    """
    digest = hashlib.sha256(head)
    for name, array in sorted(tensors, key=lambda item: item[0]):
        text, little = tensor_head(name, array.dtype, array.shape)
        digest.update(text)
        digest.update(np.ascontiguousarray(array, little).ravel().data)
    return digest.hexdigest()


@lru_cache(maxsize=4096)  # every skill of a model has the same heads
def tensor_head(name: str, dtype: np.dtype[Any], shape: tuple[int, ...]) -> tuple[bytes, np.dtype[Any]]:
    """The bytes that precede a tensor in a digest, and the little-endian dtype to hash the tensor in."""
    return canonical_json([name, dtype.name, list(shape)]) + b"\n", dtype.newbyteorder("<")
