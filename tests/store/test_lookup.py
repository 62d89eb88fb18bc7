"""Which file a name on the command line means."""

from __future__ import annotations

from pathlib import Path

import pytest

from lime_edge.errors import UnknownSkillError
from lime_edge.store.lookup import find_installed, find_skill, skill_files
from lime_edge.store.store import Store
from tests.support.store_case import package


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model directory with two skills, beside an empty store."""
    monkeypatch.setenv("LIME_EDGE_STORE", str(tmp_path / "store"))
    folder = tmp_path / "model" / "skills"
    folder.mkdir(parents=True)
    for name in ("b.lime", "a.lime", "a.lime.sig", "notes.txt"):
        (folder / name).write_bytes(b"")
    return tmp_path / "model"


def test_packages_of_a_model_and_of_a_plain_folder(model: Path, tmp_path: Path) -> None:
    expected = [model / "skills" / "a.lime", model / "skills" / "b.lime"]
    assert skill_files(model) == skill_files(model / "skills") == expected
    assert skill_files(tmp_path) == []


def test_the_model_comes_before_the_store_and_a_suffix_always_means_a_file(model: Path) -> None:
    found = Store().install(package("a"))
    assert find_skill(model, "a") == model / "skills" / "a.lime"
    assert find_skill(model, "a@1.0.0") == find_installed("a") == found.path
    with pytest.raises(UnknownSkillError, match=r"there is no file 'a.lime'; expected a .lime file"):
        find_skill(model, "a.lime")


def test_an_unknown_name_names_the_skills_of_the_model_and_of_the_store(model: Path) -> None:
    Store().install(package("c"))
    with pytest.raises(UnknownSkillError) as caught:
        find_skill(model, "legal")
    assert "it holds 'a', 'b'" in caught.value.message
    assert "installed are: 'c'" in caught.value.faults[0]


def test_a_name_that_no_file_can_have_is_unknown(model: Path) -> None:
    for name in ("n" * 300, f"folder/{'n' * 300}", "n" * 300 + ".lime"):
        with pytest.raises(UnknownSkillError):
            find_skill(model, name)
