"""Folders of the repository that tests read."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
GOLDEN = ROOT / "tests" / "skills" / "golden"
EXAMPLES = ROOT / "examples"
CUDA_ON_HOST = ROOT / "tests" / "runtime" / "native" / "cuda_on_host"
