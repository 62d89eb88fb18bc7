"""Fixtures of the training tests."""

from __future__ import annotations

import pytest
import torch

from lime_edge.training import backbone


@pytest.fixture
def float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """Train in float32, so that results do not depend on the machine's bfloat16 support."""
    monkeypatch.setattr(backbone, "training_dtype", lambda: torch.float32)
