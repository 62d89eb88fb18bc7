"""The container: one cached layout for equal tensor tables, and the same verdict with and without the cache."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lime_edge.errors import SkillFormatError
from lime_edge.skills.package import read_skill, write_skill
from lime_edge.skills.safetensors_file import Container, pack, unpack
from tests.support.faults.malformed import MALFORMED, Case, framed, manifest, valid_package, vectors


def split(data: bytes) -> tuple[str, bytes]:
    """Header and body of a package."""
    size = int.from_bytes(data[:8], "little")
    return data[8 : 8 + size].decode(), data[8 + size :]


def taken_apart(header: str, body: bytes) -> Container:
    return unpack(framed(header.encode(), body))


def test_packages_with_the_same_table_share_one_layout(tmp_path: Path) -> None:
    """Even if their manifests differ, and with them the padding of their headers."""
    files = [
        write_skill(tmp_path / f"{number}.lime", manifest(description="a" * number), vectors()).path.read_bytes()
        for number in range(9)
    ]
    layouts = [unpack(data).layout for data in files]
    assert layouts[0] is not None
    assert all(layout is layouts[0] for layout in layouts)
    other = write_skill(tmp_path / "f16.lime", manifest(), vectors(), "f16").path.read_bytes()
    assert unpack(other).layout is not layouts[0]


def test_what_is_shared_is_no_tensor_of_another_package() -> None:
    first, second = ({"gain.m": np.full((1, 40), number, np.float16)} for number in (1, 2))
    containers = [unpack(pack({"lime": "x"}, tensors)) for tensors in (first, second)]
    assert containers[0].layout is containers[1].layout
    assert [container.tensors["gain.m"][0, 0] for container in containers] == [1, 2]


def test_another_form_of_the_same_header_is_taken_apart_the_same() -> None:
    header, body = split(valid_package())
    wanted = taken_apart(header, body)
    document: dict[str, Any] = json.loads(header)
    metadata = document.pop("__metadata__")
    for other in (
        json.dumps({"__metadata__": metadata, **document}),  # with spaces
        json.dumps({**document, "__metadata__": metadata}),  # the metadata last
        json.dumps({"__metadata__": metadata, **dict(reversed(document.items()))}, separators=(",", ":")),
    ):
        found = taken_apart(other, body)
        assert (found.metadata, found.faults) == (wanted.metadata, [])
        assert found.tensors.keys() == wanted.tensors.keys()
        for name, array in wanted.tensors.items():
            np.testing.assert_array_equal(found.tensors[name], array)


def test_a_header_that_only_begins_like_a_known_one() -> None:
    """The tensor table is cached by now; the text before and after it is still validated."""
    header, body = split(valid_package())
    assert not taken_apart(header, body).faults
    opening, table = '{"__metadata__":', header[header.index(',"draft.') :].rstrip()
    for text, message in (
        (header + "x", "not strict JSON"),
        (header.rstrip() + "\0", "not strict JSON"),
        (header[:-1].rstrip("} "), "not strict JSON"),
        (opening + "{}" + table.replace(",", ';"', 1), "not strict JSON"),
        (opening + '{"lime":"a","lime":"b"}' + table, "key 'lime' appears twice"),
        (opening + '{"lime":NaN}' + table, "NaN is not a JSON number"),
        (opening + '{},"__metadata__":{}' + table, "key '__metadata__' appears twice"),
        (opening + "{}" + table[:-1] + table[:-1] + "}", "appears twice"),
    ):
        with pytest.raises(ValueError, match=message):
            taken_apart(text, body)
    for value in ("[]", '"x"', "1", '{"lime":1}'):
        assert taken_apart(opening + value + table, body).faults == [
            f"__metadata__ is {json.loads(value)!r}; expected an object of texts"
        ]
    assert "bytes follow the last tensor" in taken_apart(header, body + b"\0").faults[0]
    assert "cut short" in taken_apart(header, body[:-1]).faults[0]


def as_our_writer(data: bytes) -> bytes:
    """The package with the metadata first and no spaces in its header; empty if it has no metadata."""
    try:
        header, body = split(data)
        document = json.loads(header)
    except (ValueError, RecursionError):
        return b""
    if not isinstance(document, dict) or "__metadata__" not in document:
        return b""
    ordered = {"__metadata__": document.pop("__metadata__"), **document}
    return framed(json.dumps(ordered, separators=(",", ":")).encode(), body)


OURS = [(case, data) for case in MALFORMED if (data := as_our_writer(case.make()))]


@pytest.mark.parametrize(("case", "data"), OURS, ids=[case.name for case, _ in OURS])
def test_malformed_packages_have_the_same_faults_in_the_form_of_our_writer(
    tmp_path: Path, case: Case, data: bytes
) -> None:
    assert len(OURS) >= 80
    path = tmp_path / "bad.lime"
    path.write_bytes(data)
    with pytest.raises(SkillFormatError) as caught:
        read_skill(path)
    found = caught.value.faults or (caught.value.message,)
    assert len(found) == len(case.faults), caught.value
    for fragment in case.faults:
        assert any(fragment in fault for fault in found), (fragment, found)
