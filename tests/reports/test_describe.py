"""Descriptions of skill packages, exported models, checkpoints and folders of packages."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from lime_edge.errors import ConfigError, ModelError, SkillFormatError
from lime_edge.reports.describe import describe_path, describe_skills
from lime_edge.reports.tables import Table
from lime_edge.skills.package import read_skill
from tests.support.faults.malformed import valid_package
from tests.support.paths import GOLDEN
from tests.support.runtime_models import contract, edit_json, exported
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


def without(graph: dict[str, Any]) -> dict[str, Any]:
    """What an early version wrote."""
    return {key: value for key, value in graph.items() if key not in ("sizes", "parts")}


def test_the_largest_parts_of_a_model() -> None:
    directory = exported()
    document, (table,) = describe_path(directory)
    parts = document["graph"]["parts"]
    assert parts["embedding and output head"] == 300 * 64 * 4
    assert next(iter(parts)) == "embedding and output head"  # the largest comes first
    assert facts(table)["largest parts"].startswith("embedding and output head 76.8 KB (")
    assert ", down_proj 49.2 KB (" in facts(table)["largest parts"]


def test_a_model_of_an_early_version_has_no_list_of_parts(tmp_path: Path) -> None:
    copied = shutil.copytree(exported(), tmp_path / "model")
    edit_json(copied / "lime.json", lambda document: document.update(graph=without(document["graph"])))
    document, (table,) = describe_path(copied)
    assert "parts" not in document["graph"]
    assert "largest parts" not in facts(table)


def test_a_damaged_model(tmp_path: Path) -> None:
    copied = shutil.copytree(exported(), tmp_path / "model")
    os.truncate(copied / "model.onnx.data", 12)
    with pytest.raises(ModelError, match="cannot be used: export or copy the directory again") as caught:
        describe_path(copied)
    (fault,) = caught.value.faults
    assert fault.startswith("model.onnx.data has 12 bytes; expected ")
    assert fault.endswith(": the file is truncated: copy the directory again")


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


def test_a_package_of_format_2_shows_interface_draft_table_and_origin(tmp_path: Path) -> None:
    path = tmp_path / "tiny.lime"
    path.write_bytes(valid_package())
    document, (table, _) = describe_path(path)
    shown = facts(table)
    assert document["interface"]["answers"] == {"kind": "choices", "value": ["yes", "no", "é"]}
    assert (document["draft"], document["draft_bytes"]) == ({"order": 3, "entries": 3}, 33)
    assert (document["route_shape"], document["made"]["data"]["rows"]) == ([2, 2], 90)
    assert shown["a request becomes"] == r"prefix 'Is this spam?\n', suffix '\nAnswer:'"
    assert shown["answers"] == "one of 3 choices: ['yes', 'no', 'é']"
    assert shown["examples"] == "'Buy now!'"
    assert shown["draft table"] == "3 entries of at most 2 tokens and the next, 33 B"
    assert shown["how it was made"] == (
        "learned, keeps its instruction in the prompt; 90 rows: 1 dropped, 2 duplicates, 0 also in validation"
    )


def test_a_package_of_format_1_shows_a_plain_interface() -> None:
    document, (table, _) = describe_path(GOLDEN / "tiny-i8.lime")
    shown = facts(table)
    assert (document["format"], document["interface"]["input"]["system"]) == (1, "Be brief.")
    assert (shown["system text"], shown["a request becomes"]) == ("'Be brief.'", "itself")
    assert [shown[key] for key in ("answers", "draft table", "how it was made")] == ["free text", "none", "not said"]
