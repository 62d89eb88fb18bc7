"""The layout of a bank row: shapes, offsets, padding and ids."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from lime_edge.contract.module_table import ALIGNMENT, Module, ModuleTable
from lime_edge.contract.vector_kinds import KINDS, NEUTRAL, PREFIX

TABLE = ModuleTable((Module("a", 50, 4), Module("b", 70, 4)), 3, KINDS, frozenset({"b"}))


def test_offsets_follow_kinds_modules_and_padding() -> None:
    assert TABLE.offsets == {
        ("expert", "a"): 0,
        ("gain", "a"): 50,
        ("shift", "a"): 100,
        ("rank", "a"): 150,
        ("gain", "b"): 192,  # 154 values, padded to a multiple of 64
    }
    assert (TABLE.segment, TABLE.row_size) == (320, 960)
    assert TABLE.kinds_of("a") == KINDS
    assert TABLE.kinds_of("b") == ("gain",)
    assert TABLE.virtual_tokens == 0


def test_no_values_overlap_and_blocks_are_aligned() -> None:
    taken = np.zeros(TABLE.segment, int)
    for (kind, name), offset in TABLE.offsets.items():
        width = next(module for module in TABLE.modules if module.name == name).shape(kind, 1)[1]
        taken[offset : offset + width] += 1
    assert taken.max() == 1
    assert all(TABLE.offsets[TABLE.kinds_of(m.name)[0], m.name] % ALIGNMENT == 0 for m in TABLE.modules)


def test_packed_vectors_are_at_their_offsets_and_the_rest_is_neutral() -> None:
    gain = np.arange(3 * 70, dtype=np.float32).reshape(3, 70) + 1
    packed = TABLE.pack({"gain.b": gain})
    assert packed.shape == (3, TABLE.segment)
    np.testing.assert_array_equal(packed[:, 192:262], gain)
    np.testing.assert_array_equal(packed[:, 150:154], NEUTRAL["rank"])
    np.testing.assert_array_equal(packed[:, :150], 0)
    np.testing.assert_array_equal(packed[:, 262:], 0)
    assert TABLE.pack({}).shape == (1, TABLE.segment)


def test_a_bank_has_the_base_in_row_0_and_negates_ids_of_several_experts() -> None:
    one, several = {"gain.b": np.ones((1, 70), np.float32)}, {"gain.b": np.ones((3, 70), np.float32)}
    rows, ids = TABLE.bank([one, several], np.float16)
    assert rows.shape == (3, TABLE.row_size)
    assert rows.dtype == np.float16
    assert ids.tolist() == [0, 1, -2]
    assert not rows[0].any()
    np.testing.assert_array_equal(rows[2], TABLE.pack(several).ravel())
    np.testing.assert_array_equal(rows[1, : TABLE.segment], TABLE.pack(one)[0])
    assert not rows[1, TABLE.segment :].any()


def test_a_soft_prefix_is_one_vector_of_all_virtual_tokens() -> None:
    table = ModuleTable((Module("embed", 64, 5),), 1, PREFIX)
    assert (table.virtual_tokens, table.row_size) == (5, 5 * 64)
    assert table.modules[0].shape("prefix", 1) == (1, 5 * 64)


@pytest.mark.parametrize("change", [{"name": "c"}, {"out_features": 51}, {"rank": 5}])
def test_the_digest_covers_names_and_sizes_but_not_kinds(change: dict[str, Any]) -> None:
    first, second = TABLE.modules
    assert replace(TABLE, modules=(replace(first, **change), second)).digest != TABLE.digest
    assert replace(TABLE, modules=(second, first)).digest != TABLE.digest
    assert replace(TABLE, kinds=("gain",), gain_only=frozenset()).digest == TABLE.digest
