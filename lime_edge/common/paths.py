"""Folders in which lime-edge keeps its own files: those in the package, the cache and the store."""

from __future__ import annotations

import os
from pathlib import Path

from platformdirs import user_cache_path

SHIPPED = Path(__file__).parents[1] / "shipped"  # data files in the package


def cache_dir() -> Path:
    """The folder of downloads and conversions: $LIME_EDGE_CACHE, or the platform's (~/.cache/lime-edge)."""
    return Path(os.environ.get("LIME_EDGE_CACHE") or user_cache_path("lime-edge", appauthor=False))


def store_dir() -> Path:
    """The folder of installed skills: $LIME_EDGE_STORE, or ``store`` in the cache."""
    return Path(os.environ.get("LIME_EDGE_STORE") or cache_dir() / "store")
