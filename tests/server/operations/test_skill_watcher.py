"""Skills that appear, change, go back and vanish, and trust policies that change, while a server runs."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import pytest

from lime_edge.runtime import Runtime
from lime_edge.server.operations.skill_watcher import FolderSource, SkillWatcher, StoreSource
from lime_edge.store.store import Store
from tests.support.runtime_models import exported, runtime, skill
from tests.support.signatures import key_table, pair, policy, publisher, signed

ACME = publisher("acme", ["legal", "brief"], key_table(pair("acme")))


@pytest.fixture
def made() -> Runtime:
    return runtime(exported())


def put(folder: Path, name: str, seed: int = 0, version: str = "1.0.0", file: str | None = None) -> Path:
    """Write a skill into a folder, as an operator would: not atomically."""
    target = folder / (file or f"{name}.lime")
    shutil.copyfile(skill(exported(), name, seed, version=version), target)
    return target


def versions(made: Runtime) -> dict[str, str]:
    return {info.name: info.version for info in made.skills()}


def test_a_folder(made: Runtime, tmp_path: Path) -> None:
    watcher = SkillWatcher(made, [FolderSource(tmp_path)])
    watcher.poll()
    assert versions(made) == {}
    put(tmp_path, "legal")
    put(tmp_path, "brief")
    watcher.poll()
    assert versions(made) == {"legal": "1.0.0", "brief": "1.0.0"}
    before = made.skills()
    os.utime(tmp_path / "legal.lime")
    watcher.poll()
    assert made.skills() == before  # the same content: no new generation
    put(tmp_path, "legal", 1, "2.0.0")
    watcher.poll()
    assert versions(made) == {"legal": "2.0.0", "brief": "1.0.0"}
    (tmp_path / "legal.lime").rename(tmp_path / "law.lime")
    (tmp_path / "brief.lime").unlink()
    watcher.poll()
    assert versions(made) == {"legal": "2.0.0"}
    assert watcher.diagnostics() == []


def test_a_bad_file_changes_nothing_and_is_told(made: Runtime, tmp_path: Path) -> None:
    watcher = SkillWatcher(made, [FolderSource(tmp_path)], reserved=lambda name: name == "auto")
    good = put(tmp_path, "legal")
    data = good.read_bytes()
    watcher.poll()
    generation = made.skills()[0].generation
    good.write_bytes(data[:-100])
    put(tmp_path, "auto")
    (tmp_path / "empty.lime").touch()
    (tmp_path / "folder.lime").mkdir()
    watcher.poll()
    assert [(info.name, info.generation) for info in made.skills()] == [("legal", generation)]
    told = watcher.diagnostics()
    assert [line.partition(":")[0] for line in told] == ["auto.lime", "empty.lime", "folder.lime", "legal.lime"]
    assert "the name 'auto' is reserved" in told[0]
    assert not [line for line in told if str(tmp_path) in line]
    good.write_bytes(data)
    for name in ("auto", "empty"):
        (tmp_path / f"{name}.lime").unlink()
    (tmp_path / "folder.lime").rmdir()
    watcher.poll()
    assert watcher.diagnostics() == []
    assert made.skills()[0].generation == generation


def test_of_two_files_with_one_name_the_first_stays(made: Runtime, tmp_path: Path) -> None:
    watcher = SkillWatcher(made, [FolderSource(tmp_path)])
    put(tmp_path, "legal", file="a.lime")
    put(tmp_path, "legal", 1, "2.0.0", file="b.lime")
    watcher.poll()
    assert versions(made) == {"legal": "1.0.0"}
    assert watcher.diagnostics() == ["b.lime: another skill named 'legal' is loaded; only the first is used"]
    (tmp_path / "a.lime").unlink()
    put(tmp_path, "legal", 1, "2.0.0", file="b.lime")
    watcher.poll()
    assert versions(made) == {"legal": "2.0.0"}
    assert watcher.diagnostics() == []


def test_a_file_whose_skill_gets_another_name(made: Runtime, tmp_path: Path) -> None:
    watcher = SkillWatcher(made, [FolderSource(tmp_path)])
    put(tmp_path, "legal", file="a.lime")
    watcher.poll()
    put(tmp_path, "brief", file="a.lime")
    watcher.poll()
    assert versions(made) == {"brief": "1.0.0"}


def test_skills_of_others_are_left_alone(made: Runtime, tmp_path: Path) -> None:
    made.load_skill(skill(exported(), "legal", version="3.0.0"))
    watcher = SkillWatcher(made, [FolderSource(tmp_path)])
    put(tmp_path, "legal")
    watcher.poll()
    (tmp_path / "legal.lime").unlink()
    watcher.poll()
    assert versions(made) == {"legal": "3.0.0"}


def test_the_store_goes_forward_and_back(made: Runtime, tmp_path: Path) -> None:
    store = Store(tmp_path)
    watcher = SkillWatcher(made, [StoreSource(store)])
    watcher.poll()
    store.install(skill(exported(), "legal"))
    watcher.poll()
    store.install(skill(exported(), "legal", 1, version="2.0.0"))
    watcher.poll()
    assert versions(made) == {"legal": "2.0.0"}
    store.rollback("legal")
    watcher.poll()
    assert versions(made) == {"legal": "1.0.0"}
    index = tmp_path / "index.json"
    whole = index.read_bytes()
    index.write_bytes(b"{")
    watcher.poll()
    assert versions(made) == {"legal": "1.0.0"}  # a store that cannot be read removes nothing
    assert "not strict JSON" in watcher.diagnostics()[0]
    index.write_bytes(whole)
    watcher.poll()
    assert watcher.diagnostics() == []
    store.remove("legal")
    watcher.poll()
    assert versions(made) == {}


def test_a_policy_that_revokes_and_admits_again(tmp_path: Path) -> None:
    folder, file = tmp_path / "skills", tmp_path / "policy.toml"
    folder.mkdir()
    file.write_text(policy(ACME), "utf-8")
    made = Runtime.load(exported(), threads=1, trust=file)
    watcher = SkillWatcher(made, [FolderSource(folder)], file)
    signed(put(folder, "legal"), pair("acme"))
    put(folder, "brief")
    watcher.poll()
    assert versions(made) == {"legal": "1.0.0"}
    signed(folder / "brief.lime", pair("acme"))
    watcher.poll()
    assert versions(made) == {"legal": "1.0.0", "brief": "1.0.0"}
    generation = {info.name: info.generation for info in made.skills()}["brief"]
    digest = next(info.digest for info in made.skills() if info.name == "legal")
    file.write_text(policy(ACME, f'[revoked]\nskills = ["{digest}"]'), "utf-8")
    watcher.poll()
    assert [(info.name, info.generation) for info in made.skills()] == [("brief", generation)]
    assert "is revoked" in watcher.diagnostics()[0]
    file.write_text("format = ", "utf-8")
    watcher.poll()
    assert versions(made) == {"brief": "1.0.0"}
    assert any(
        line.startswith("policy.toml: the trust policy policy.toml is not TOML") for line in watcher.diagnostics()
    )
    file.write_text(policy(ACME), "utf-8")
    watcher.poll()
    assert versions(made) == {"brief": "1.0.0", "legal": "1.0.0"}
    assert watcher.diagnostics() == []


def test_under_a_policy_a_folder_does_not_go_back(tmp_path: Path) -> None:
    folder, file = tmp_path / "skills", tmp_path / "policy.toml"
    folder.mkdir()
    file.write_text(policy(ACME), "utf-8")
    made = Runtime.load(exported(), threads=1, trust=file)
    watcher = SkillWatcher(made, [FolderSource(folder)], file)
    signed(put(folder, "legal", 1, "2.0.0"), pair("acme"))
    watcher.poll()
    signed(put(folder, "legal"), pair("acme"))
    watcher.poll()
    assert versions(made) == {"legal": "2.0.0"}
    assert "legal.lime" in watcher.diagnostics()[0]


def test_the_thread_looks_by_itself(made: Runtime, tmp_path: Path) -> None:
    watcher = SkillWatcher(made, [FolderSource(tmp_path)], seconds=0.02)
    watcher.start()
    try:
        put(tmp_path, "legal")
        end = time.monotonic() + 20
        while not made.skills() and time.monotonic() < end:
            time.sleep(0.01)
        assert versions(made) == {"legal": "1.0.0"}
    finally:
        watcher.stop()
    put(tmp_path, "brief")
    time.sleep(0.1)
    assert versions(made) == {"legal": "1.0.0"}
