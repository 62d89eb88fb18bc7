"""Rows of 200 random skills: the digests that the tests of lime-edge-web compare theirs with, byte for byte."""

from __future__ import annotations

import json
from pathlib import Path

from tests.support.runtime_models import contract
from tests.support.web_models import source
from tests.tools.platforms.web_fixtures import PACKED, PACKED_FILE, packed_digests, random_skill


def test_rows_of_random_skills_are_those_on_file(tmp_path: Path) -> None:
    expected = json.loads(PACKED_FILE.read_text("utf-8"))
    assert len(expected) == PACKED
    model = contract(source())
    assert [packed_digests(random_skill(tmp_path, number), model) for number in range(PACKED)] == expected
