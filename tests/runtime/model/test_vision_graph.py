"""Directories whose vision graph, contract and decoder do not fit are refused when they are loaded."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lime_edge.contract.vision import Tiles, VisionContract
from lime_edge.errors import ModelError
from lime_edge.runtime import Runtime
from lime_edge.runtime.model.picture_reader import open_reader
from lime_edge.runtime.model.session import Graph, SessionSettings
from lime_edge.runtime.model.vision_graph import VisionGraph
from tests.runtime.vision.vision_case import CONTRACT, SIDE, opened, refresh, seeing, write_vision_graph
from tests.support.runtime_models import exported


def copied(directory: Path, contract: VisionContract = CONTRACT) -> Path:
    shutil.copytree(seeing(), directory, dirs_exist_ok=True)
    (directory / "vision.json").write_text(contract.to_json(), "utf-8")
    return directory


def refused(directory: Path) -> str:
    refresh(directory)
    with pytest.raises(ModelError) as caught:
        Runtime.load(directory, threads=1)
    return str(caught.value)


def test_other_graphs_than_the_contract_says(tmp_path: Path) -> None:
    directory = copied(tmp_path)
    write_vision_graph(directory / "vision.onnx", features=32)
    assert "the vision graph's 'features' has 32 values; expected 64" in refused(directory)
    write_vision_graph(directory / "vision.onnx", output="hidden")
    assert "the vision graph has no output 'features'" in refused(directory)
    (directory / "vision.onnx").write_bytes(b"no graph")
    assert "cannot load" in refused(directory)


def test_other_contracts_than_the_graph_is_of(tmp_path: Path) -> None:
    grid = Tiles(SIDE, SIDE, SIDE // 2, 4, square=True)
    found = refused(copied(tmp_path, dataclasses.replace(CONTRACT, family="llava_onevision", tiles=grid, video=None)))
    assert "the vision graph has no output 'newline'" in found
    assert "token id 5000; the vocabulary has 300" in refused(
        copied(tmp_path, dataclasses.replace(CONTRACT, image_token_id=5000))
    )
    (tmp_path / "vision.json").write_text("{}", "utf-8")
    assert "vision.json has format None" in refused(tmp_path)


def test_changed_files_are_found(tmp_path: Path) -> None:
    directory = copied(tmp_path)
    for name, old, new in (("vision.json", b"0.25", b"0.50"), ("vision.onnx", b"weights", b"weightz")):
        whole = (directory / name).read_bytes()
        (directory / name).write_bytes(whole.replace(old, new))
        with pytest.raises(ModelError, match=f"{name} has digest"):
            Runtime.load(directory, threads=1)
        (directory / name).write_bytes(whole)
    (directory / "vision.onnx").unlink()
    with pytest.raises(ModelError, match=r"vision\.onnx is missing"):
        Runtime.load(directory, threads=1)


def test_a_decoder_that_takes_no_features(tmp_path: Path) -> None:
    directory = copied(tmp_path)
    for name in ("model.onnx", "model.onnx.data"):
        shutil.copyfile(exported() / name, directory / name)
    assert "its decoder takes no features: export again" in refused(directory)


def test_features_are_finite_and_as_many_as_the_prompt_has_places(tmp_path: Path) -> None:
    graph = opened()._graph
    found: Any = VisionGraph(graph.directory, graph, SessionSettings(threads=1))
    pixels = np.full((9, 3, SIDE, SIDE), np.nan, np.float32)
    with pytest.raises(ModelError, match="not finite"):
        found.run({"pixel_values": pixels})
    assert found.run({"pixel_values": np.zeros_like(pixels)})["features"].shape == (9, 4, 64)  # in two runs
    with pytest.raises(ModelError, match="could not run the vision graph"):
        found.run({"pixel_values": pixels[:, :2]})


def test_a_model_without_a_vision_graph_has_no_reader() -> None:
    graph: Graph = Runtime.load(exported(), threads=1)._graph
    assert open_reader(graph, SessionSettings(), 0) is None
