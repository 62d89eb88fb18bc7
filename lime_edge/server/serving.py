"""What all endpoints of one server share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lime_edge.runtime import Runtime
from lime_edge.server.operations.server_metrics import ServerMetrics
from lime_edge.server.operations.server_settings import ServerSettings

from .served_models import ServedModels


@dataclass(frozen=True)
class Serving:
    """One model that is served."""

    runtime: Runtime
    models: ServedModels
    metrics: ServerMetrics
    settings: ServerSettings
    diagnostics: Callable[[], Sequence[str]]  # why skills that were found are not loaded
