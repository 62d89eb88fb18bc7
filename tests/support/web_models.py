"""A tiny model in the form for browsers, and the model directory that it was converted from."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from lime_edge.exporters import AdapterWeights, export
from lime_edge.exporters.web.web_export import export_web
from lime_edge.skills.manifest import Manifest
from lime_edge.skills.package import write_skill
from tests.support.runtime_models import contract, scratch, weights
from tests.support.tiny import tiny_model


def lite_weights() -> AdapterWeights:
    """The random adapter of the runtime's tests, for skills of gains and shifts."""
    return replace(weights(), kinds=("gain", "shift"))


def source(precision: Any = "fp32") -> Path:
    """A tiny model directory whose skills have gains and shifts; tests must not write to it."""
    return _source(precision)


def converted(precision: Any = "fp32") -> Path:
    """The same model for browsers; tests must not write to it."""
    return _converted(precision)


@cache
def _source(precision: Any) -> Path:
    backbone, target = scratch() / "web-backbone", scratch() / f"web-source-{precision}"
    if not backbone.exists():
        tiny_model("llama", backbone)
    export(lite_weights(), backbone, target, precision)
    return target


@cache
def _converted(precision: Any) -> Path:
    target = scratch() / f"web-{precision}"
    export_web(source(precision), target)
    return target


def lite_skill(path: Path, seed: int = 0, dtype: Any = "i8", size: float = 0.5, **manifest: Any) -> Path:
    """Write a random skill of one expert for the tiny model; some of its vectors are missing."""
    found = contract(source())
    rng = np.random.default_rng(seed)
    shapes = {f"{k}.{m.name}": m.shape(k, 1) for m in found.table.modules for k in found.table.kinds_of(m.name)}
    names = [name for name in shapes if rng.random() < 0.8] or [*shapes][:1]
    tensors = {name: (size * rng.standard_normal(shapes[name])).astype(np.float32) for name in names}
    whole: dict[str, Any] = {
        "name": path.stem,
        "version": "1.0.0",
        "backbone": found.backbone_digest,
        "adapter": found.adapter_digest,
        "modules": found.table.digest,
        "routing": replace(found.routing, experts=1),
        "created": "2026-01-31",
        **manifest,
    }
    return write_skill(path, Manifest(**whole), tensors, dtype).path
