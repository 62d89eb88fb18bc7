"""Digests: pinned values, and what they do and do not depend on."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pytest

from lime_edge.common.digests import canonical_json, json_digest, tensor_digest

ARRAY = np.arange(6, dtype=np.float32).reshape(2, 3)


def test_canonical_json() -> None:
    assert canonical_json({"b": [1, 2.5], "a": "é\n"}) == '{"a":"é\\n","b":[1,2.5]}'.encode()
    assert json_digest({"a": 1, "b": 2}) == json_digest({"b": 2, "a": 1})
    assert json_digest([]) == hashlib.sha256(b"[]").hexdigest()
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json(float("nan"))


def test_a_tensor_digest_is_over_head_and_little_endian_bytes() -> None:
    wanted = hashlib.sha256(b'head["a","float32",[2,3]]\n' + ARRAY.astype("<f4").tobytes()).hexdigest()
    assert tensor_digest([("a", ARRAY)], b"head") == wanted


@pytest.mark.parametrize("same", [np.asfortranarray(ARRAY), np.repeat(ARRAY, 2, 1)[:, ::2]])
def test_memory_layout_does_not_matter(same: Any) -> None:
    assert not same.flags.c_contiguous
    assert tensor_digest([("a", same)]) == tensor_digest([("a", ARRAY)])


def test_byte_order_does_not_matter() -> None:
    values = np.array([1.5, -2.0], np.float32)
    assert tensor_digest([("x", values.astype(">f4"))]) == tensor_digest([("x", values)])


def test_order_does_not_matter_but_name_type_shape_and_values_do() -> None:
    other = ("b", np.ones(2))
    wanted = tensor_digest([("a", ARRAY), other])
    assert tensor_digest([other, ("a", ARRAY)]) == wanted
    changed: list[tuple[str, Any]] = [
        ("c", ARRAY),
        ("a", ARRAY.astype(np.float64)),
        ("a", ARRAY.reshape(3, 2)),
        ("a", ARRAY + 1),
    ]
    assert wanted not in {tensor_digest([tensor, other]) for tensor in changed}
