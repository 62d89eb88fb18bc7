"""Settings of all tests: silent tokenizers, one thread, the same Hypothesis examples on every run."""

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
def one_thread() -> None:
    """Limit torch, if a test module imported it, to one thread: tiny models need no more, and threads cost time."""
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)
