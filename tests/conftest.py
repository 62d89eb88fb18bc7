"""What all tests share: quiet tokenizers, one thread, examples that are the same on every run."""

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
    """Torch, where a test module has imported it, waits for its threads on a busy machine; toys need one."""
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)
