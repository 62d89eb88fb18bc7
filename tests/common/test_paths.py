"""Folders on this machine: environment variables override the defaults."""

from __future__ import annotations

from pathlib import Path

import pytest

from lime_edge.common.paths import SHIPPED, cache_dir, store_dir


def test_the_environment_overrides_the_defaults(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("LIME_EDGE_STORE", "LIME_EDGE_CACHE"):
        monkeypatch.setenv(name, "")  # empty is the same as unset
    assert cache_dir().name == "lime-edge"
    assert cache_dir().is_absolute()
    monkeypatch.setenv("LIME_EDGE_CACHE", str(tmp_path))
    assert (cache_dir(), store_dir()) == (tmp_path, tmp_path / "store")
    monkeypatch.setenv("LIME_EDGE_STORE", str(tmp_path / "elsewhere"))
    assert (cache_dir(), store_dir()) == (tmp_path, tmp_path / "elsewhere")


def test_shipped_files_are_in_the_package() -> None:
    assert SHIPPED.is_dir()
    assert SHIPPED.parent.name == "lime_edge"
