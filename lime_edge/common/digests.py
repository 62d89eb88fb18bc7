"""TODO."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt


def canonical_json(value: Any) -> bytes:
    """The one byte form of a JSON value: sorted keys, no spaces, UTF-8, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def json_digest(value: Any) -> str:
    """SHA-256 (hex) of the canonical JSON of a value."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


def tensor_digest(tensors: Iterable[tuple[str, npt.NDArray[Any]]], head: bytes = b"") -> str:
    """SHA-256 (hex) of `head` and named tensors, whatever order they come in.

    Each tensor contributes its canonical JSON head ``[name, dtype, shape]``, a newline and its
    little-endian C-order bytes, in order of name.
    """
    digest = hashlib.sha256(head)
    for name, array in sorted(tensors, key=lambda item: item[0]):
        text, little = tensor_head(name, array.dtype, array.shape)
        digest.update(text)
        digest.update(np.ascontiguousarray(array, little).ravel().data)
    return digest.hexdigest()


@lru_cache(maxsize=4096)  # the same for every skill of a model
def tensor_head(name: str, dtype: np.dtype[Any], shape: tuple[int, ...]) -> tuple[bytes, np.dtype[Any]]:
    """What stands before a tensor's bytes in a digest, and the type whose bytes they are."""
    return canonical_json([name, str(dtype), list(shape)]) + b"\n", dtype.newbyteorder("<")
