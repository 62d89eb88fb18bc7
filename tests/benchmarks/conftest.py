"""Fixtures for benchmarks that train: float32 on every machine, and a shared adapter on a tiny backbone."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """Train in float32 even where the processor supports bfloat16."""
    import torch

    from lime_edge.training import backbone

    monkeypatch.setattr(backbone, "training_dtype", lambda: torch.float32)


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with a shared adapter; not to be written to."""
    from lime_edge.contract.routing import Routing
    from tests.support.tiny_training import save, wrapped

    return save(wrapped(routing=Routing(experts=2)), tmp_path_factory.mktemp("shared"))
