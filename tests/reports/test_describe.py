"""Descriptions of skill packages, exported models, checkpoints and folders of packages."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lime_edge.errors import ConfigError, SkillFormatError
from lime_edge.reports.describe import describe_path, describe_skills
from lime_edge.reports.tables import Table
from lime_edge.skills.package import read_skill
from tests.support.runtime_models import contract, exported
from tests.support.store_case import package


@pytest.fixture
def skill(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.lime"
    path.write_bytes(package())
    return path


def facts(table: Table) -> dict[str, str]:
    return {row[0]: row[1] for row in table.rows}


def test_a_package(skill: Path) -> None:
    document, (table, metrics) = describe_path(skill)
    assert (document["what"], document["digest"]) == ("skill", read_skill(skill).digest)
    assert table.title == "skill tiny 1.0.0"
    assert facts(table)["digest"] == document["digest"]
    columns = ("measured", "base", "skill", "LoRA", "rows")
    assert (metrics.columns, metrics.rows[0][1:]) == (columns, ["50.0 %", "75.0 %", "75.0 %", "64"])


def test_an_exported_model() -> None:
    directory = exported()
    document, (table,) = describe_path(directory)
    found = contract(directory)
    assert (document["what"], document["graph"]["digest"], document["skills"]) == ("model", found.graph_digest, [])
    assert facts(table)["one loaded skill"] == (
        f"{found.table.segment:,} numbers with one expert, {found.table.row_size:,} with 3"
    )
    assert facts(table)["gain only"] == "2 of these modules"


def test_a_checkpoint(tmp_path: Path) -> None:
    config = {"base_model_name_or_path": "tiny", "r": 4, "target_modules": ["q", "o"], "routing": {"experts": 3}}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config), "utf-8")
    document, (table,) = describe_path(tmp_path)
    assert (document["what"], document["r"], document["alpha"]) == ("checkpoint", 4, None)
    assert facts(table)["target modules"] == "q, o"
    assert facts(table)["routing"] == "experts 3"
    assert facts(table)["adapter"] == "adapter_model.safetensors is missing"
    (tmp_path / "adapter_config.json").write_text("[" * 100_000, "utf-8")
    with pytest.raises(ConfigError, match=r"adapter_config.json cannot be read"):
        describe_path(tmp_path)


def test_a_folder_lists_damaged_packages_with_the_reason(skill: Path) -> None:
    (skill.parent / "bad.lime").write_bytes(b"damaged")
    document, (table,) = describe_path(skill.parent)
    bad, good = document["skills"]
    assert (good["name"], good["version"]) == ("tiny", "1.0.0")
    assert "not a skill package" in bad["error"]
    assert table.rows[0][-1] == f"cannot be used: {bad['error']}"


def test_what_cannot_be_described(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"is a directory without any of these; expected a .lime file"):
        describe_path(tmp_path)
    with pytest.raises(ConfigError, match=r"does not exist; expected a .lime file"):
        describe_path(tmp_path / "missing")
    with pytest.raises(ConfigError, match="is not a directory; expected an exported model"):
        describe_skills(tmp_path / "missing")
    (tmp_path / "bad.lime").write_bytes(b"damaged")
    with pytest.raises(SkillFormatError):
        describe_path(tmp_path / "bad.lime")
    (tmp_path / "bad.lime").unlink()
    assert describe_skills(tmp_path)[0] == {"skills": []}
