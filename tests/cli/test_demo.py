"""`lime-edge demo` with a tiny model instead of the shipped one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file

from lime_edge import read_skill
from lime_edge.cli import demo
from lime_edge.common.digests import json_digest, tensor_digest
from lime_edge.common.paths import SHIPPED
from lime_edge.contract.model import read_contract
from lime_edge.errors import ModelError
from lime_edge.training import export_checkpoint
from tests.support.cli_models import backbone, facts, learned, lime, trained


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of an installation: adapter, skills, prompts."""
    home = tmp_path_factory.mktemp("shipped")
    target = home / demo.MODEL
    (target / "skills").mkdir(parents=True)
    shutil.copy(learned()[0], target / "skills")
    shutil.copy(trained()[0] / "adapter_model.safetensors", target)
    config = json.loads((trained()[0] / "adapter_config.json").read_text("utf-8"))
    (target / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": "default"}), "utf-8")
    stops = [{"skill": name, "asked": "what", "prompt": "Say what"} for name in ("odd", "not-shipped")]
    (home / "demo.json").write_text(json.dumps(stops), "utf-8")
    return home


@pytest.fixture(autouse=True)
def installed(shipped: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = tmp_path_factory.getbasetemp() / "cache"  # one for all tests here
    monkeypatch.setenv("LIME_EDGE_CACHE", str(cache))
    monkeypatch.setattr(demo, "SHIPPED", shipped)
    monkeypatch.setattr("lime_edge.training.backbone.default_backbone", backbone)


def test_the_second_time_comes_from_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    first = facts("demo")
    model = Path(first["directory"])
    assert read_contract(model).adapter_digest == read_skill(learned()[0]).manifest.adapter
    assert read_contract(model).precision == "int4"
    assert not first["from_cache"]
    (answer,) = first["answers"]
    assert answer["base"] != answer["answer"]
    assert set(first["bytes"]) == {"model", "odd.lime"}

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("exported again")

    monkeypatch.setattr(export_checkpoint, "export_checkpoint", refuse)
    second = facts("demo")
    assert second["from_cache"]
    assert second["answers"] == first["answers"]
    said = lime("demo").stdout
    assert all(
        word in said for word in ("with the skill", "microseconds", "from the cache", "odd.lime", "quality of odd")
    )


def test_a_damaged_model_is_made_again_where_it_was_asked_for(tmp_path: Path) -> None:
    directory = tmp_path / "model"
    assert not facts("demo", "--dir", directory)["from_cache"]
    assert lime("run", directory, "Say what", "--skill", "odd", "--max-new-tokens", "4").exit_code == 0
    (directory / "model.onnx").write_bytes(b"damaged")
    assert not facts("demo", "--dir", directory)["from_cache"]


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine", "utf-8")
    result = lime("demo", "--dir", tmp_path)
    assert result.exit_code == 1
    assert "holds no exported model" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_an_installation_without_the_files_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(demo, "SHIPPED", tmp_path)
    result = lime("demo")
    assert result.exit_code == 1
    assert all(name in result.stderr for name in ("adapter_config.json", "adapter_model.safetensors", ".lime"))


def test_the_shipped_prompts_are_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "SHIPPED", SHIPPED)
    stops = demo.read_stops()
    assert [stop.skill for stop in stops] == ["legal", "shell", "json", "router"]
    assert all(stop.asked in stop.prompt for stop in stops)


def test_the_shipped_skills_fit_the_shipped_adapter() -> None:
    """By the adapter's digest, computed from its file alone; the README beside them lists every skill."""
    home = SHIPPED / demo.MODEL
    config = json.loads((home / "adapter_config.json").read_text("utf-8"))
    tensors = load_file(home / "adapter_model.safetensors")
    named = {name.removeprefix("base_model.model.").replace(".lime_", "."): array for name, array in tensors.items()}
    shared = {name: array for name, array in named.items() if name.endswith((".A", ".B"))}
    scales = {name.rpartition(".")[0]: config["alpha"] / config["r"] for name in shared}
    digest = tensor_digest(shared.items(), json_digest(scales).encode())
    skills = [read_skill(path) for path in (home / "general.lime", *sorted((home / "skills").glob("*.lime")))]
    assert len(skills) == 5
    assert {skill.name: skill.manifest.adapter for skill in skills} == {skill.name: digest for skill in skills}
    assert {skill.manifest.backbone for skill in skills} == {config["backbone_digest"]}
    card = (home / "README.md").read_text("utf-8")
    assert all(f"| {skill.name} |" in card for skill in skills if skill.name != "general")


def test_a_folder_that_skills_cannot_be_copied_to_is_named(tmp_path: Path, skill: Path) -> None:
    (tmp_path / "skills").touch()
    with pytest.raises(ModelError, match=r"skills cannot be written: File exists; choose another folder with --dir"):
        demo.put_skills(tmp_path, [read_skill(skill)])
