"""Checkpoint directories: what is rejected, what the digest covers, and vectors set and read back."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lime_edge.errors import LimeError
from lime_edge.training import checkpoint


def test_what_refuses_is_a_lime_error() -> None:
    with pytest.raises(LimeError):
        checkpoint.open_checkpoint(Path("nowhere"), torch.float32)
