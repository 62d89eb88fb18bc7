"""The benchmark of pictures: every side reads pictures of its own, and the second skill finds the first one's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from benchmarks.harness.rounds import read
from benchmarks.speed import picture
from benchmarks.speed.picture import Sides, main
from tests.runtime.vision.vision_case import seeing
from tests.support.runtime_models import exported, skill


@pytest.fixture
def read_by_torch(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the torch side was given, which is not run here."""
    given: list[Any] = []

    def model(backbone: Path, threads: int) -> Any:
        def run(ids: Any, pixels: Any) -> int:
            given.append((ids.shape, pixels.shape))
            return 0

        return run

    monkeypatch.setattr(picture, "_torch_model", model)
    return given


def test_parts_are_measured(tmp_path: Path, read_by_torch: list[Any]) -> None:
    skills = [str(skill(seeing(), name, activation="always")) for name in ("one", "two")]
    arguments = [str(seeing()), str(exported()), *skills, "--rounds", "2", "--threads", "1"]
    result = CliRunner().invoke(main, [*arguments, "--json", str(tmp_path / "x.json")], catch_exceptions=False)
    assert result.exit_code == 0
    (group,) = read(tmp_path / "x.json")["groups"]
    assert [figure.name for figure in group.figures][:2] == ["transformers fp32, base", "lime-edge, skill"]
    assert list(group["lime-edge, skill"].ratios) == ["transformers fp32, base"]
    assert {shape[1] for shape in read_by_torch} == {(1, 3, 8, 8)}


def test_which_pictures_are_encoded(read_by_torch: list[Any]) -> None:
    skills = (skill(seeing(), "one"), skill(seeing(), "two"))
    sides = Sides(seeing(), exported(), skills, 1)
    pictures = sides.runtime._graph.pictures
    assert pictures is not None
    for turn, encoded in ((sides.ours, 1), (sides.ours, 1), (sides.second, 1), (sides.opened, 0), (sides.tower, 0)):
        before = pictures.encoded
        assert turn() > 0
        assert pictures.encoded - before == encoded
