"""Copies of a skill: different skills of the same shape, within the original's bounds."""

from __future__ import annotations

from pathlib import Path

from benchmarks.harness.skill_copies import write_copies
from lime_edge.skills.package import read_skill
from tests.support.runtime_models import exported, skill


def test_copies_are_different_skills_made_once(tmp_path: Path) -> None:
    source = skill(exported(), "legal")
    paths = write_copies(source, tmp_path, 3)
    made = [path.stat().st_mtime_ns for path in paths]
    assert write_copies(source, tmp_path, 3) == paths
    assert [path.stat().st_mtime_ns for path in paths] == made
    skills = [read_skill(path) for path in (source, *paths)]
    assert len({one.digest for one in skills}) == len({one.name for one in skills}) == 4
    for one in skills[1:]:
        assert (one.kinds, one.dtype) == (skills[0].kinds, skills[0].dtype)
        assert all(one.manifest.bounds[kind] <= bound for kind, bound in skills[0].manifest.bounds.items())
        assert all((one.tensors[name] != array).any() for name, array in skills[0].tensors.items())
