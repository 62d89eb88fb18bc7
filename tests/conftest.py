"""What all tests share: quiet tokenizers, two threads, examples that are the same on every run."""

from __future__ import annotations

import os
import sys

import pytest
from hypothesis import settings

os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["HF_HUB_OFFLINE"] = "1"  # no test downloads anything

settings.register_profile("lime", deadline=None, derandomize=True, database=None)
settings.load_profile("lime")


@pytest.fixture(autouse=True, scope="session")
def two_threads() -> None:
    """Keep torch, where a test module has imported it, from taking every core of a shared machine."""
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(2)
