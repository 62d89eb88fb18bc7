"""The store: what it accepts, what it refuses, and that no change is ever visible in part."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import pytest

from lime_edge.common.paths import cache_dir, store_dir
from lime_edge.errors import (
    SkillError,
    SkillFormatError,
    SkillTrustError,
    SkillVersionError,
    StoreError,
    UnknownSkillError,
)
from lime_edge.store.store import Store
from lime_edge.store.transfer import pull, update
from lime_edge.trust.signature_file import SIGNATURE_LIMIT, read_signature, signature_path
from tests.support.faults.malformed import MALFORMED
from tests.support.store_case import check, litter, package, sha256, signature_of, state, versions


class Policy:
    """A policy that accepts only signed bytes and records what it was asked."""

    def __init__(self) -> None:
        self.asked: list[bytes] = []

    def admit(self, data: bytes, signature: bytes | None) -> object:
        self.asked.append(data)
        if signature != signature_of(data):
            raise SkillError("not signed")
        return "somebody"


def test_install_of_bytes_and_of_a_file(store: Store, tmp_path: Path) -> None:
    assert store.list() == ()
    assert not store.path.exists()  # reading creates nothing
    first = store.install(package(), origin="https://example.org/x")
    assert (first.name, first.version, first.changed, first.before) == ("tiny", "1.0.0", True, None)
    assert first.path == store.get("tiny") == store.path / "blobs" / f"{sha256(package())}.lime"
    path = tmp_path / "some other name.lime"
    path.write_bytes(package(version="1.1.0"))
    signature_path(path).write_bytes(signature_of(path.read_bytes()))
    second = store.install(path)
    assert (second.version, second.before) == ("1.1.0", "1.0.0")
    assert read_signature(signature_path(second.path)) == signature_of(package(version="1.1.0"))
    assert store.get("tiny@1.0.0") == first.path
    assert store.info("tiny@1.0.0").held.origin == "https://example.org/x"
    assert versions(store) == ("1.1.0", ("1.0.0",), ["1.0.0", "1.1.0"])
    check(store.path)


def test_installing_again_changes_nothing_but_may_sign(store: Store) -> None:
    store.install(package(), origin="a")
    before = state(store.path)
    again = store.install(package())
    assert (again.changed, again.held.origin) == (False, "a")
    store.install(package(), signature=signature_of(package()))
    store.install(package())
    assert read_signature(signature_path(again.path)) == signature_of(package())
    assert state(store.path) == before
    assert store.install(package(), origin="b").held.origin == "b"


def test_an_older_version_never_replaces_a_newer_one(store: Store) -> None:
    store.install(package(version="1.10.0"))
    for older in ("1.9.0", "1.10.0-rc.1", "0.99.0"):
        with pytest.raises(SkillVersionError, match=f"version {older} .* is older than 1.10.0"):
            store.install(package(version=older))
    assert versions(store) == ("1.10.0", (), ["1.10.0"])
    assert not litter(store.path)
    assert store.install(package(version="1.9.0"), allow_downgrade=True).before == "1.10.0"
    assert store.install(package(version="1.9.1-rc.1")).before == "1.9.0"


@pytest.mark.parametrize("allowed", [False, True])
def test_a_version_never_changes(store: Store, allowed: bool) -> None:
    store.install(package(version="1.0.0"))
    store.install(package(version="2.0.0"))
    for other in (
        package(version="2.0.0", description="other"),
        package(version="1.0.0", description="other"),
        package(version="2.0.0+build"),
    ):
        with pytest.raises(SkillVersionError, match="has other content than the version"):
            store.install(other, allow_downgrade=allowed)
    assert versions(store) == ("2.0.0", ("1.0.0",), ["1.0.0", "2.0.0"])
    assert store.get("tiny").read_bytes() == package(version="2.0.0")


def test_rollback_step_by_step_and_to_a_version(store: Store) -> None:
    for version in ("1.0.0", "1.1.0", "1.2.0"):
        store.install(package(version=version))
    assert store.rollback("tiny").version == "1.1.0"
    assert store.rollback("tiny").version == "1.0.0"
    with pytest.raises(SkillVersionError, match=r"no version before 1.0.0; installed versions: 1.0.0, 1.1.0, 1.2.0"):
        store.rollback("tiny")
    forward = store.rollback("tiny", "1.2.0")
    assert (forward.version, forward.before, forward.changed) == ("1.2.0", "1.0.0", True)
    assert not store.rollback("tiny", "1.2.0").changed
    assert store.rollback("tiny").version == "1.0.0"
    with pytest.raises(
        UnknownSkillError, match=r"version '3.0.0' of skill 'tiny' is not installed; installed versions: 1.0.0"
    ):
        store.rollback("tiny", "3.0.0")


def test_rollback_to_a_file_that_is_damaged_or_gone(store: Store) -> None:
    store.install(package(version="1.0.0"))
    store.install(package(version="2.0.0"))
    store.get("tiny@1.0.0").write_bytes(package(version="3.0.0"))
    with pytest.raises(StoreError, match="was changed"):
        store.rollback("tiny")
    store.get("tiny@1.0.0").unlink()
    with pytest.raises(SkillFormatError, match="does not exist"):
        store.rollback("tiny")
    with pytest.raises(StoreError, match=r"the file of tiny 1.0.0 is missing: .*; install it again"):
        store.get("tiny@1.0.0")
    assert store.get("tiny").read_bytes() == package(version="2.0.0")
    store.install(package(version="1.0.0"), allow_downgrade=True)
    check(store.path)


def test_a_skill_that_goes_or_changes_while_it_is_looked_up(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process may remove or replace the skill between reading the index and finding the file."""
    store.install(package(version="1.0.0"))
    seen = store.entry("tiny")
    other = Store(store.path)
    looks = iter([seen])
    monkeypatch.setattr(store, "entry", lambda name: next(looks, None) or other.entry(name))
    other.remove("tiny")
    other.gc()
    with pytest.raises(UnknownSkillError, match="no skill named 'tiny'"):
        store.get("tiny")
    other.install(package(version="2.0.0"))
    looks = iter([seen])
    assert store.get("tiny").read_bytes() == package(version="2.0.0")


def test_the_policy_is_asked_before_anything_is_parsed(store: Store, tmp_path: Path) -> None:
    policy, path = Policy(), tmp_path / "x.lime"
    with pytest.raises(SkillError, match="not signed"):
        store.install(b"no package", trust=policy)
    path.write_bytes(package())
    with pytest.raises(SkillError, match="not signed"):
        pull(store, str(path), policy)
    signature_path(path).write_bytes(signature_of(package()))
    pull(store, str(path), policy)
    path.write_bytes(package(version="1.1.0"))
    assert update(store, trust=policy)[0].note == "not signed"
    store.install(package(version="1.2.0"))
    assert store.rollback("tiny", trust=policy).version == "1.0.0"
    with pytest.raises(SkillError, match="not signed"):
        store.rollback("tiny", "1.2.0", policy)
    assert policy.asked == [
        b"no package",
        package(),
        package(),
        package(version="1.1.0"),
        package(),
        package(version="1.2.0"),
    ]
    assert versions(store)[0] == "1.0.0"


@pytest.mark.parametrize("case", MALFORMED[::5], ids=lambda case: case.name)
def test_what_is_no_sound_package_is_not_installed(store: Store, case: Any) -> None:
    with pytest.raises(SkillFormatError):
        store.install(case.make())
    assert not store.path.exists()


def test_remove_and_gc(store: Store) -> None:
    for version in ("1.0.0", "1.1.0", "1.2.0"):
        store.install(package(version=version), signature=signature_of(package(version=version)))
    store.install(package("other"))
    assert store.gc().files == 0
    with pytest.raises(SkillVersionError, match=r"version 1.2.0 of skill 'tiny' is in use"):
        store.remove("tiny@1.2.0")
    with pytest.raises(UnknownSkillError):
        store.remove("tiny@9.0.0")
    assert store.remove("tiny@1.1.0") == ("1.1.0",)
    assert versions(store) == ("1.2.0", ("1.0.0",), ["1.0.0", "1.2.0"])
    freed = store.gc()
    assert (freed.files, freed.size) == (2, len(package(version="1.1.0")) + len(signature_of(b"")))
    check(store.path)
    assert store.remove("tiny") == ("1.0.0", "1.2.0")
    with pytest.raises(UnknownSkillError):
        store.get("tiny")
    assert store.gc().files == 4
    assert [entry.name for entry in store.list()] == ["other"]
    assert store.remove("other@1.0.0") == ("1.0.0",)
    assert store.list() == ()


def test_removing_a_version_between_two_uses_of_another_leaves_no_step_that_changes_nothing(store: Store) -> None:
    store.install(package(version="1.0.0"))
    store.install(package(version="2.0.0"))
    store.rollback("tiny", "1.0.0")
    assert versions(store)[:2] == ("1.0.0", ("1.0.0", "2.0.0"))
    store.remove("tiny@2.0.0")
    assert versions(store) == ("1.0.0", (), ["1.0.0"])


def test_gc_touches_nothing_of_others_and_nothing_when_the_index_is_lost(store: Store) -> None:
    store.install(package())
    foreign = [store.path / "blobs" / "notes.txt", store.path / "blobs" / f"{'0' * 64}.lime.bak", store.path / "x.tmp"]
    for path in foreign:
        path.write_text("mine")
    orphan = store.path / "blobs" / f"{'0' * 64}.lime"
    orphan.write_bytes(b"")
    assert store.gc().files == 1
    assert all(path.is_file() for path in foreign)
    (store.path / "index.json").unlink()
    assert store.gc().files == 0
    assert (store.path / "blobs" / f"{sha256(package())}.lime").is_file()


def test_a_signature_that_is_none(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "x.lime"
    path.write_bytes(package())
    signature_path(path).write_bytes(bytes(SIGNATURE_LIMIT + 1))
    with pytest.raises(SkillTrustError, match="more than 65536 bytes"):
        store.install(path)
    signature_path(path).unlink()
    signature_path(path).mkdir()
    with pytest.raises(SkillTrustError, match="cannot be used"):
        store.install(path)
    signature_path(path).rmdir()
    os.mkfifo(signature_path(path))  # nothing writes to the pipe: a read would block for ever
    with pytest.raises(SkillTrustError, match="not a regular file"):
        store.install(path)


def test_a_store_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("a file")
    with pytest.raises(StoreError, match=r"cannot be used|cannot be read"):
        Store(tmp_path / "store").install(package())


def test_many_at_once(store: Store) -> None:
    """Threads with separate Store objects share a folder; every reported installation is found."""
    todo = [(name, f"1.{minor}.0") for name in ("a", "b") for minor in range(4)]
    done: list[tuple[str, str, str]] = []

    def work(name: str, version: str) -> None:
        found = Store(store.path).install(package(name, version), allow_downgrade=True)
        Store(store.path).gc()
        done.append((found.name, found.version, found.held.blob))

    threads = [threading.Thread(target=work, args=one) for one in todo]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(done) == len(todo)
    check(store.path, set(done))
    assert not litter(store.path)


def test_where_the_store_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("LIME_EDGE_STORE", "LIME_EDGE_CACHE"):
        monkeypatch.delenv(name, raising=False)
    assert store_dir() == cache_dir() / "store"
    assert cache_dir().name == "lime-edge"
    monkeypatch.setenv("LIME_EDGE_CACHE", str(tmp_path))
    assert store_dir() == tmp_path / "store"
    monkeypatch.setenv("LIME_EDGE_STORE", str(tmp_path / "elsewhere"))
    assert Store().path == tmp_path / "elsewhere"
