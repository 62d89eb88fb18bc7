"""Fixtures of the exporters' tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.tiny import ARCHITECTURES, tiny_model


@pytest.fixture(scope="session")
def backbones(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A tiny backbone of every architecture; tests must not write to it."""
    folder = tmp_path_factory.mktemp("backbones")
    return {name: tiny_model(name, folder / name) for name in ARCHITECTURES}


@pytest.fixture(scope="session")
def backbone(backbones: dict[str, Path]) -> Path:
    """The tiny Llama."""
    return backbones["llama"]
