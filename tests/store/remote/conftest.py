"""Fixtures of the tests that download into a store."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from lime_edge.store.store import Store
from tests.support.servers.faulty_server import Server, serving
from tests.support.store_case import check


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as running:
        yield running


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """A store that must be intact, without unused packages, at the end of the test."""
    made = Store(tmp_path / "store")
    yield made
    check(made.path)
    used = {held.blob for entry in made.list() for held in entry.versions.values()}
    assert not [path for path in (made.path / "blobs").glob("*") if path.name[:64] not in used]
