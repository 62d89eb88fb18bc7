"""The frozen tower: in torch or as a graph, and its features on disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lime_edge.exporters.towers.contracts import FAMILIES, vision_contract
from lime_edge.training.pictures import frozen_tower
from lime_edge.training.pictures.frozen_tower import FeatureFiles, FrozenTower
from tests.support.vision.vision_training import lime_vision_dir, lime_vision_model


def tower() -> FrozenTower:
    contract = vision_contract(lime_vision_dir())
    return FrozenTower(lime_vision_model(), FAMILIES["lime_vision"], contract)


def test_a_graph_computes_the_features_that_torch_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = np.random.default_rng(0).standard_normal((3, 3, 224, 224), np.float32)
    graph = tower()
    found = graph.run({"pixel_values": pixels})["features"]
    assert graph._session is not None
    monkeypatch.setattr(frozen_tower, "find_spec", lambda _: None)
    plain = tower()
    wanted = plain.run({"pixel_values": pixels})["features"]
    assert plain._session is None
    assert found.shape == (3, 10, 32)
    assert np.abs(wanted).max() > 1e-2
    np.testing.assert_allclose(found, wanted, atol=1e-4, rtol=1e-3)


def test_the_weights_are_those_of_the_tower_alone() -> None:
    names = [name for name, _ in tower().weights()]
    assert any("vision_tower" in name for name in names)
    assert any("projector" in name for name in names)
    assert not any("language_model" in name for name in names)


def test_features_are_found_again_as_they_were(tmp_path: Path) -> None:
    files = FeatureFiles(tmp_path / "features")
    features = np.random.default_rng(0).standard_normal((4, 8)).astype(np.float32)
    assert files.read("a") is None
    files.write("a", features)
    found = FeatureFiles(tmp_path / "features").read("a")
    assert found is not None
    np.testing.assert_array_equal(found, features)


def test_damaged_and_unwritable_files_cost_a_computation_and_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = FeatureFiles(tmp_path)
    (tmp_path / "a.npy").write_bytes(b"\x93NUMPY cut")
    assert files.read("a") is None
    (tmp_path / "b.npy").write_bytes(b"")
    assert files.read("b") is None
    monkeypatch.setattr(frozen_tower, "_FILES_LIMIT", 100)
    files.write("c", np.zeros((10, 10), np.float32))
    assert files.read("c") is None
    (tmp_path / "file").write_text("no folder")
    blocked = FeatureFiles(tmp_path / "file" / "inside")
    monkeypatch.setattr(frozen_tower, "_FILES_LIMIT", 2**20)
    blocked.write("d", np.zeros((1, 1), np.float32))
    assert blocked.read("d") is None


def test_features_of_objects_are_not_read(tmp_path: Path) -> None:
    header = b"{'descr': '|O', 'fortran_order': False, 'shape': (1,), }".ljust(117) + b"\n"
    (tmp_path / "a.npy").write_bytes(b"\x93NUMPY\x01\x00v\x00" + header + b"\x80\x04N.")
    assert FeatureFiles(tmp_path).read("a") is None
