"""`lime-edge inspect`, `list` and `doctor`."""

from __future__ import annotations

import json
import shutil
import tomllib
from pathlib import Path

import pytest

from lime_edge import read_skill
from lime_edge.reports import doctor
from tests.support.cli_models import facts, fails, lime, trained
from tests.support.paths import ROOT


def test_inspect(model: Path, skill: Path) -> None:
    assert facts("inspect", skill)["digest"] == read_skill(skill).digest
    assert facts("inspect", trained()[0])["r"] == 2
    found = facts("inspect", model)
    assert found["adapter"]["digest"] == read_skill(skill).manifest.adapter
    assert [entry["name"] for entry in found["skills"]] == ["odd"]
    assert facts("inspect", model / "skills")["skills"] == found["skills"]


def test_inspect_shows_what_it_says_as_json(skill: Path, tmp_path: Path) -> None:
    result = lime("inspect", skill, "--json", tmp_path / "facts.json")
    found = json.loads((tmp_path / "facts.json").read_text("utf-8"))
    assert found["digest"] in result.stdout
    assert "[bold]odd[/bold]" in result.stdout  # untrusted text is not interpreted as markup


def test_inspect_refuses(tmp_path: Path) -> None:
    (tmp_path / "broken.lime").write_bytes(b"no skill")
    assert "does not exist" in fails("inspect", tmp_path / "nothing")
    assert "not a skill package" in fails("inspect", tmp_path / "broken.lime")
    (tmp_path / "empty").mkdir()
    assert "adapter_config.json" in fails("inspect", tmp_path / "empty")


def test_list_shows_damaged_packages_too(skill: Path, tmp_path: Path) -> None:
    shutil.copy(skill, tmp_path / "good.lime")
    (tmp_path / "bad.lime").write_bytes(b"no skill")
    bad, good = facts("list", tmp_path)["skills"]
    assert (good["name"], good["size"]) == ("odd", skill.stat().st_size)
    assert "not a skill package" in bad["error"]
    assert "cannot be used" in lime("list", tmp_path).stdout
    assert "is not a directory" in fails("list", tmp_path / "nothing")


def test_doctor(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LIME_EDGE_CACHE", str(tmp_path))
    (tmp_path / "kept").write_bytes(bytes(1000))
    monkeypatch.setitem(doctor.EXTRAS["train"], "not-there", "")
    found = facts("doctor")
    assert found["missing"] == {"train": ["not-there"], "export": ["not-there"], "sign": []}
    assert found["cache"] == {"directory": str(tmp_path), "bytes": 1000}
    assert "CPUExecutionProvider" in found["providers"]
    assert "pip install 'lime-edge[train]'" in lime("doctor").stdout.replace("\n", " ")


def test_doctor_knows_the_extras() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    for extra, modules in doctor.EXTRAS.items():
        named = {line.partition(">")[0] for line in extras[extra] if not line.startswith("lime-edge")}
        assert set(modules) == named


def test_doctor_checks_a_model(model: Path, tmp_path: Path) -> None:
    shutil.copytree(model, tmp_path / "model")
    (tmp_path / "model" / "skills" / "bad.lime").write_bytes(b"no skill")
    verdicts = facts("doctor", tmp_path / "model", "--prove")["model"]["skills"]
    assert verdicts["odd"] is None
    assert "not a skill package" in verdicts["bad"]
    weights = tmp_path / "model" / "model.onnx.data"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    assert "changed or damaged" in fails("doctor", tmp_path / "model")


def test_list_takes_a_policy_for_a_folder_only(tmp_path: Path) -> None:
    assert "installed skills were checked" in fails("list", "--trust", tmp_path / "policy.toml", code=2)
