"""Where lime-edge keeps files of its own on this machine. Knows nothing of what they hold."""

from __future__ import annotations

import os
from pathlib import Path

from platformdirs import user_cache_path

SHIPPED = Path(__file__).parents[1] / "shipped"  # files that come with the package


def cache_dir() -> Path:
    """Where downloads and conversions are kept: $LIME_EDGE_CACHE, or the platform's folder (~/.cache/lime-edge)."""
    return Path(os.environ.get("LIME_EDGE_CACHE") or user_cache_path("lime-edge", appauthor=False))


def store_dir() -> Path:
    """Where installed skills are kept: $LIME_EDGE_STORE, or ``store`` in the cache."""
    return Path(os.environ.get("LIME_EDGE_STORE") or cache_dir() / "store")
