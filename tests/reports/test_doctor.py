"""The report on this installation, and the checks of a model and its skills."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

import lime_edge
from lime_edge.errors import ModelError
from lime_edge.reports import doctor
from tests.support.runtime_models import exported, skill
from tests.support.store_case import package


def test_the_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LIME_EDGE_CACHE", str(tmp_path))
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").write_bytes(bytes(1500))
    (tmp_path / "link").symlink_to(tmp_path / "folder" / "file")
    document, (table,) = doctor.machine()
    assert document["lime_edge"] == lime_edge.__version__
    assert document["cache"] == {"directory": str(tmp_path), "bytes": 1500}  # a link is not counted twice
    assert document["cpu"]["logical_cores"] == os.cpu_count()
    assert document["packages"].keys() == set(doctor.BASE)
    assert tuple(table.rows[-1]) == ("cache", f"{tmp_path}, 1.5 KB")


def test_extras_that_are_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        doctor, "EXTRAS", {"train": {"no-such-one": ""}, "export": {"other": "no_such_two"}, "sign": {}}
    )
    assert doctor.missing_extras() == {"train": ["no-such-one"], "export": ["no-such-one", "other"], "sign": []}
    facts = {row[0]: row[1] for row in doctor.machine()[1][0].rows}
    assert facts["extra export"] == "missing no-such-one, other: pip install 'lime-edge[export]'"
    assert facts["extra sign"] == "installed"


def test_only_flags_that_matter_are_reported() -> None:
    flags = doctor.cpu_flags()
    assert flags is None or set(flags) <= set(doctor.FLAGS)


def test_a_model_and_its_skills(tmp_path: Path) -> None:
    shutil.copytree(exported(), tmp_path / "model")
    (tmp_path / "model" / "skills").mkdir(exist_ok=True)
    shutil.copy(skill(exported(), "good"), tmp_path / "model" / "skills" / "good.lime")
    (tmp_path / "model" / "skills" / "other.lime").write_bytes(package())
    document, (table, verdicts) = doctor.model(tmp_path / "model", prove=False)
    assert document["skills"]["good"] is None
    assert "learned with routing experts = 2, the model has 3" in document["skills"]["other"]
    assert [tuple(row) for row in verdicts.rows] == [("good", "fits"), ("other", document["skills"]["other"])]
    assert "match their digests" in table.rows[0][1]
    graph = tmp_path / "model" / "model.onnx"
    graph.write_bytes(graph.read_bytes() + b"\n")
    with pytest.raises(ModelError, match=r"model.onnx"):
        doctor.model(tmp_path / "model", prove=False)


def test_a_cache_that_cannot_be_read_is_empty(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for cache in (tmp_path / "file" / "below", tmp_path / ("n" * 300)):
        monkeypatch.setenv("LIME_EDGE_CACHE", str(cache))
        assert doctor.machine()[0]["cache"] == {"directory": str(cache), "bytes": 0}
