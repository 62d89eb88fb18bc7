"""The exported model and the skill that most tests of the command line use."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.cli_models import exported, learned


@pytest.fixture(scope="module")
def model() -> Path:
    return exported()[0]


@pytest.fixture(scope="module")
def skill() -> Path:
    return learned()[0]
