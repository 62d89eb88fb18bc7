"""Vectors compared with those of known skills."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from lime_edge.audit import vector_outliers, verdict
from lime_edge.skills.package import Skill, read_skill
from tests.support.runtime_models import exported, skill


def test_robust_deviations() -> None:
    known = [0.8, 0.9, 1.0, 1.1, 1.2]  # median 1, median deviation 0.1
    assert vector_outliers.robust_z(2.0, known) == pytest.approx(1 / 0.14826)
    assert vector_outliers.robust_z(0.0, known) == pytest.approx(-1 / 0.14826)
    assert vector_outliers.robust_z(1.5, [1.0, 1.0, 1.0]) == pytest.approx(5)  # a tenth of the median at least
    assert vector_outliers.robust_z(1.0, []) is None


@pytest.fixture(scope="module")
def known() -> list[Skill]:
    return [read_skill(skill(exported(), f"known-{i}")) for i in range(10)]


def changed(one: Skill, name: str, by: Any) -> Skill:
    return dataclasses.replace(one, tensors={**one.tensors, name: by(one.tensors[name].copy())})


def test_vectors_out_of_line_are_named(known: list[Skill]) -> None:
    sound = read_skill(skill(exported(), "new"))
    assert max(cell.worst for cell in vector_outliers.cells(sound, known)) < verdict.VECTOR_Z
    name = sorted(sound.tensors)[3]
    kind, _, module = name.partition(".")

    def peaked(array: Any) -> Any:
        array[..., 0] = 40
        return array

    for by, figure in ((lambda array: 5 * array, "rms_z"), (peaked, "peak_z")):
        worst = vector_outliers.summary(changed(sound, name, by), known)["worst"][0]
        assert (worst["kind"], worst["module"]) == (kind, module)
        assert worst[figure] > verdict.VECTOR_Z
    assert worst["layer"] == int(module.split(".")[2])


def test_what_there_is_to_compare_with(known: list[Skill]) -> None:
    one = known[0]
    few = vector_outliers.summary(one, known[1:3])
    assert (few["enough"], len(few["known"])) == (False, 2)
    assert vector_outliers.summary(one, known)["enough"]
    alone = vector_outliers.summary(one, [])
    assert alone["worst"] == []
    assert {cell["rms_z"] for cell in alone["cells"]} == {None}
    flipped = dataclasses.replace(one, tensors={name: -value for name, value in one.tensors.items()})
    assert vector_outliers.likeness(one, [flipped]) == {one.name: pytest.approx(-1, abs=1e-5)}
