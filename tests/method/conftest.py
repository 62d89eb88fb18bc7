"""The wrapped tiny model of the method tests."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from lime_edge.contract.vector_kinds import KINDS
from tests.support.tiny_training import EXPERTS, wrapped


@pytest.fixture(scope="module", params=[1, 2, 3, 4], ids=lambda n: f"window{n}")
def model(request: pytest.FixtureRequest) -> Any:
    return wrapped(routing=replace(EXPERTS, window=request.param), kinds=KINDS)
