"""Update and push, with files as references."""

from __future__ import annotations

from pathlib import Path

import pytest

from lime_edge.errors import UnknownSkillError
from lime_edge.store.store import Store
from lime_edge.store.transfer import pull, push, update
from lime_edge.trust.signature_file import read_signature, signature_path
from tests.support.store_case import package, sha256, versions


def test_an_update_brings_back_nothing_that_was_rolled_back(store: Store, tmp_path: Path) -> None:
    source = tmp_path / "moving.lime"
    for version in ("1.0.0", "1.1.0"):
        source.write_bytes(package(version=version))
        pull(store, source.as_uri())
    store.rollback("tiny")
    assert [(skill.after, skill.note) for skill in update(store)] == [
        ("1.0.0", "1.1.0 is installed but was rolled back; 1.0.0 stays in use")
    ]
    source.write_bytes(package(version="1.2.0"))
    assert update(store, ["tiny"])[0].after == "1.2.0"
    assert versions(store)[1] == ("1.0.0",)
    source.write_bytes(package(version="0.1.0"))
    (refused,) = update(store)
    assert refused.failed
    assert "is older than 1.2.0" in refused.note
    assert update(store, allow_downgrade=True)[0].after == "0.1.0"


def test_an_update_takes_no_other_skill_and_leaves_the_others_alone(store: Store, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.lime").write_bytes(package(name))
        pull(store, str(tmp_path / f"{name}.lime"))
    store.install(package("c"))
    (tmp_path / "a.lime").write_bytes(package("b", "2.0.0"))
    (tmp_path / "b.lime").write_bytes(package("b", "3.0.0"))
    found = {skill.name: skill for skill in update(store)}
    assert "holds skill 'b'; expected 'a'" in found["a"].note
    assert (found["a"].failed, found["b"].failed, found["c"].failed) == (True, False, False)
    assert {entry.name: entry.current for entry in store.list()} == {"a": "1.0.0", "b": "3.0.0", "c": "1.0.0"}
    with pytest.raises(UnknownSkillError, match="no skill named 'd' is installed; installed are: 'a', 'b', 'c'"):
        update(store, ["b", "d"])


def test_push_to_a_file(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIME_EDGE_STORE", str(store.path))
    store.install(package(), signature=b"signed")
    target = tmp_path / "out.lime"
    assert push("tiny", str(target)) == f"{target.as_uri()}#sha256={sha256(package())}"
    assert (target.read_bytes(), read_signature(signature_path(target))) == (package(), b"signed")
    store.install(package(version="1.1.0"))
    push("tiny", str(target))
    assert (target.read_bytes(), read_signature(signature_path(target))) == (package(version="1.1.0"), None)
