"""Reports on the store and on what its commands did."""

from __future__ import annotations

from pathlib import Path

import pytest

from lime_edge.reports.store import (
    describe_freed,
    describe_installed,
    describe_installs,
    describe_store,
    describe_updates,
)
from lime_edge.store.store import Store
from lime_edge.store.transfer import Update
from tests.support.store_case import package, sha256, signature_of


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def test_every_skill_has_a_line_even_if_its_file_is_damaged(store: Store) -> None:
    assert describe_store(store)[0] == {"store": str(store.path), "skills": []}
    store.install(package("good"), signature=signature_of(package("good")), origin="file:///x")
    store.install(package("bad")).path.write_bytes(b"damaged")
    document, (table,) = describe_store(store)
    assert [(skill["name"], skill["current"]) for skill in document["skills"]] == [("bad", "1.0.0"), ("good", "1.0.0")]
    assert [skill["versions"]["1.0.0"]["signed"] for skill in document["skills"]] == [False, True]
    bad, good = table.rows
    assert bad[-1].startswith("cannot be used: ")
    assert (good[3], good[4]) == ("yes", "file:///x")


def test_one_skill_has_its_versions_in_their_order(store: Store) -> None:
    for version in ("1.9.0", "1.10.0", "1.11.0"):
        store.install(package(version=version))
    store.rollback("tiny")
    document, tables = describe_installed(store, "tiny@1.9.0")
    assert (document["version"], document["installed"]["current"]) == ("1.9.0", "1.10.0")
    assert list(document["installed"]["versions"]) == ["1.9.0", "1.10.0", "1.11.0"]
    assert [row[0] for row in tables[-1].rows] == ["1.9.0", "* 1.10.0", "1.11.0"]
    assert tables[-1].title == "installed: 1.10.0 in use, previously 1.9.0"


def test_what_a_pull_changed(store: Store) -> None:
    done = [
        store.install(package()),
        store.install(package()),
        store.install(package(), origin="file:///x"),
        store.install(package(version="2.0.0")),
    ]
    document, (table,) = describe_installs(done)
    assert [row[2] for row in table.rows] == [
        "installed",
        "already installed",
        "reference recorded",
        "replaces 1.0.0",
    ]
    assert table.rows[0][3] == f"sha256={sha256(package())}"
    assert [skill["changed"] for skill in document["installed"]] == [True, False, True, True]


def test_updates_and_collection(store: Store) -> None:
    done = [Update("a", "1.0.0", "2.0.0"), Update("b", "1.0.0", "1.0.0", "no network", failed=True)]
    document, (table,) = describe_updates(done)
    assert document["updates"][1]["failed"]
    assert [row[-1] for row in table.rows] == ["updated", "no network"]
    store.install(package())
    store.remove("tiny")
    document, (table,) = describe_freed(store, store.gc())
    assert document == {"files": 1, "size": len(package())}
    assert "1 files" in table.rows[0][1]
