"""The directory for browsers: its files, what it says of them, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from lime_edge.cli import main
from lime_edge.contract.model import read_contract
from lime_edge.contract.model_files import file_digest, file_faults
from lime_edge.errors import ExportError, ModelError
from lime_edge.exporters.web.web_export import export_web
from lime_edge.runtime import Runtime
from tests.support.runtime_models import exported
from tests.support.web_models import converted, lite_skill, source


def test_the_directory_describes_itself() -> None:
    made = converted("int4")
    contract = read_contract(made)
    assert not file_faults(made, contract)
    assert sorted(dict(contract.files)) == ["model.onnx", "model.onnx.data", "wasm.onnx", "wasm.onnx.data"]
    document = json.loads((made / "web.json").read_text("utf-8"))
    assert document["variants"]["wasm"] == ["wasm.onnx", "wasm.onnx.data"]
    assert document["files"]["tokenizer.json"]["sha256"] == file_digest(made / "tokenizer.json")
    assert (document["vocabulary"], document["layers"], document["eos_ids"]) == (300, 2, [2])
    before = read_contract(source("int4"))
    assert (contract.table.digest, contract.adapter_digest) == (before.table.digest, before.adapter_digest)


def test_fp32_has_one_graph_for_all_devices() -> None:
    document = json.loads((converted() / "web.json").read_text("utf-8"))
    assert document["variants"]["wasm"] == document["variants"]["webgpu"] == ["model.onnx", "model.onnx.data"]


def test_skills_are_copied_and_listed(tmp_path: Path) -> None:
    given = tmp_path / "given"
    shutil.copytree(source(), given)
    (given / "skills").mkdir()
    lite_skill(given / "skills" / "one.lime", description="Says one.")
    export_web(given, tmp_path / "made")
    [listed] = json.loads((tmp_path / "made" / "web.json").read_text("utf-8"))["skills"]
    copied = tmp_path / "made" / listed["file"]
    assert copied.read_bytes() == (given / "skills" / "one.lime").read_bytes()
    assert (listed["name"], listed["description"], listed["sha256"]) == ("one", "Says one.", file_digest(copied))


def test_what_cannot_be_converted_is_refused_at_once(tmp_path: Path) -> None:
    output = tmp_path / "out"
    output.mkdir()
    (output / "notes.txt").write_text("mine")
    given = tmp_path / "given"
    shutil.copytree(source(), given)
    (given / "model.onnx.data").write_bytes(b"short")
    with pytest.raises(ExportError) as caught:
        export_web(given, output, overwrite=True)
    assert len(caught.value.faults) == 2
    assert [*output.iterdir()] == [output / "notes.txt"]
    with pytest.raises(ExportError, match="expert and rank vectors"):
        export_web(exported(), tmp_path / "experts")
    assert not (tmp_path / "experts").exists()
    with pytest.raises(ModelError):
        export_web(tmp_path, tmp_path / "nothing")


def test_the_command_takes_a_model_directory_and_overwrites_only_if_asked(tmp_path: Path) -> None:
    arguments = ["export", str(source()), "--target", "web", "-o", str(tmp_path / "made")]
    assert CliRunner().invoke(main, arguments).exit_code == 0
    assert CliRunner().invoke(main, arguments).exit_code != 0
    assert CliRunner().invoke(main, [*arguments, "--overwrite"]).exit_code == 0


def test_python_refuses_the_directory() -> None:
    with pytest.raises(ModelError, match="which lime-edge-web reads; export without --target web"):
        Runtime.load(converted())
