"""The index of the store: its format, its history, and how a damaged one is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lime_edge.errors import SkillVersionError, StoreError
from lime_edge.store.index import InstalledSkill, InstalledVersion, read_index, write_index
from lime_edge.store.store import Store
from tests.support.store_case import check, package, sha256


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text[:-1], "is not strict JSON"),
        (lambda text: text.replace('"format":1', '"format":2'), "has format 2; this lime-edge reads 1: update"),
        (
            lambda text: text.replace('"current":"1.0.0"', '"current":"2.0.0"'),
            "names version '2.0.0', which is not",
        ),
        (lambda text: text.replace(sha256(package()), "../../x"), "expected a SHA-256"),
        (lambda text: text.replace('"tiny"', '"../tiny"'), "expected a name"),
        (lambda text: text.replace('"history"', '"story"'), "unknown key 'story'"),
    ],
)
def test_a_damaged_index_is_refused_and_nothing_is_lost(store: Store, change: Any, message: str) -> None:
    found = store.install(package())
    index = store.path / "index.json"
    text = index.read_text()
    index.write_text(change(text))
    for call in (store.list, lambda: store.install(package("other")), store.gc, lambda: store.remove("tiny")):
        with pytest.raises(StoreError, match=message):
            call()
    assert found.path.is_file()
    index.write_text(text)
    check(store.path, {("tiny", "1.0.0", found.held.blob)})


def test_the_index_is_as_documented(store: Store) -> None:
    found = store.install(package(), origin="https://example.org/x")
    data = (store.path / "index.json").read_bytes()
    assert json.loads(data) == {
        "format": 1,
        "skills": {
            "tiny": {
                "current": "1.0.0",
                "history": [],
                "versions": {
                    "1.0.0": {
                        "blob": sha256(package()),
                        "digest": found.held.digest,
                        "size": len(package()),
                        "origin": "https://example.org/x",
                        "installed": found.held.installed,
                    }
                },
            }
        },
    }
    assert write_index(read_index(data)) == data


def entry(current: str, *others: str) -> InstalledSkill:
    version = InstalledVersion("a" * 64, "b" * 64, 1, "", "2026-01-01T00:00:00Z")
    return InstalledSkill("tiny", current, (), dict.fromkeys((current, *others), version))


def test_entries_are_values_and_their_history_is_bounded() -> None:
    first = entry("1.0.0", "2.0.0")
    second = first.use("2.0.0")
    assert (first.current, first.history) == ("1.0.0", ())
    assert (second.current, second.history) == ("2.0.0", ("1.0.0",))
    assert second.use("2.0.0") is second
    assert second.back() == first
    for _ in range(100):
        second = second.use("1.0.0").use("2.0.0")
    assert len(second.history) == 100
    assert read_index(write_index({"tiny": second})) == {"tiny": second}


def test_build_metadata_does_not_make_another_version() -> None:
    known = entry("1.0.0+a", "1.0.0-rc.1")
    assert known.same_as("1.0.0+b") == known.same_as("1.0.0") == "1.0.0+a"
    assert known.same_as("1.0.1") is None
    assert known.known() == "1.0.0-rc.1, 1.0.0+a"


def test_removing_a_version_joins_equal_steps_of_the_history() -> None:
    steps = entry("1.0.0", "2.0.0", "3.0.0").use("2.0.0").use("1.0.0").use("3.0.0")
    left = steps.without_version("2.0.0")
    assert (left.current, left.history, sorted(left.versions)) == ("3.0.0", ("1.0.0",), ["1.0.0", "3.0.0"])
    with pytest.raises(SkillVersionError, match=r"version 3.0.0 of skill 'tiny' is in use; roll back first"):
        steps.without_version("3.0.0")
