"""A skill package on disk, for the tests of this room."""

from __future__ import annotations

from pathlib import Path

import pytest

from lime_edge.skills.package import Skill, write_skill
from tests.support.faults.malformed import manifest, vectors


@pytest.fixture
def written(tmp_path: Path) -> Skill:
    return write_skill(tmp_path / "tiny.lime", manifest(), vectors())
