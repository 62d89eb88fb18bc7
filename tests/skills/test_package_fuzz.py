"""Random bytes, mutations and random JSON given to the package reader: a skill or a LimeError, nothing else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lime_edge.errors import LimeError
from lime_edge.skills.package import read_skill
from tests.support.faults import malformed

FUZZ = settings(max_examples=300, deadline=None, derandomize=True, database=None)


def _survives(path: Path, data: bytes) -> bool:
    """Whether the bytes are accepted. An exception other than LimeError escapes and fails the test."""
    path.write_bytes(data)
    message = ""
    try:
        read_skill(path)
    except LimeError as error:
        message = str(error)
    assert len(message) < 40_000
    return not message


@FUZZ
@given(st.binary(max_size=400) | st.binary(max_size=200).map(malformed.framed))
def test_random_bytes_are_refused(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    assert not _survives(tmp_path_factory.getbasetemp() / "fuzz.lime", data)


@FUZZ
@given(st.data())
def test_mutated_packages_are_refused(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    original = malformed.valid_package()
    edited = bytearray(original)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(edited) - 1))
        edited[at : at + data.draw(st.integers(0, 9))] = data.draw(st.binary(max_size=9))
    same = bytes(edited) == original
    assert _survives(tmp_path_factory.getbasetemp() / "fuzz.lime", bytes(edited)) == same


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=6,
)


def _set(target: Any, key: Any, value: Any) -> Callable[[], None]:
    return lambda: target.__setitem__(key, value)


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) inside a JSON value."""
    keys = value.keys() if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    return [place for key in list(keys) for place in [(value, key), *_places(value[key])]]


@FUZZ
@given(st.data())
def test_any_value_anywhere_in_the_manifest(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    def edit(document: dict[str, Any], _: object) -> None:
        target, key = data.draw(st.sampled_from(_places(document)))
        target[key] = data.draw(_JSON)

    _survives(tmp_path_factory.getbasetemp() / "fuzz.lime", malformed.package(edit))


@FUZZ
@given(st.data())
def test_any_value_anywhere_in_the_header(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    def edit(header: dict[str, Any]) -> None:
        target, key = data.draw(st.sampled_from(_places(header)))
        target[key] = data.draw(_JSON)

    _survives(tmp_path_factory.getbasetemp() / "fuzz.lime", malformed.with_header(edit))
