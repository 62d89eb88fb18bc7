"""Exports a checkpoint: reads it with torch and passes its weights to the ONNX exporter as arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from lime_edge.common.extras import require_extra
from lime_edge.common.files import check_writable, reason
from lime_edge.contract.model import ModelContract
from lime_edge.contract.vector_kinds import KINDS
from lime_edge.errors import ConfigError, ExportError
from lime_edge.runtime.native import operators as native

from . import backbone, checkpoint

with require_extra("export"):
    from lime_edge.exporters import AdaptedModule, AdapterWeights, Precision, export
    from lime_edge.exporters.export import output_faults
    from lime_edge.exporters.towers.kinds import VisionPrecision


def export_checkpoint(
    directory: Path,
    output: Path,
    precision: Precision = "int4",
    rank_gate: bool = False,
    overwrite: bool = False,
    genai_operators: bool = False,
    gain_only: Sequence[str] = (),
    expert: bool = True,
    vision: VisionPrecision = "int8",
    tiles: int = 1,
) -> ModelContract:
    """Export a checkpoint as a model directory.

    Args:
        directory: The checkpoint.
        output: The model directory to create.
        precision: "int4", "fp16" or "fp32".
        rank_gate: Give the graph the rank gate even if the checkpoint has none, for skills that have one.
        overwrite: Replace `output` if it exists.
        genai_operators: Copy this installation's native operators into `output`, for ONNX Runtime GenAI.
        gain_only: Projections for which the graph takes only the gain of a skill. Skills need less memory and tokens
            less time, but skills with other vectors there, possibly the checkpoint's own, cannot be loaded.
        expert: Whether the graph takes expert vectors; skills of one expert are learned without them. False saves
            memory and time, and excludes skills, as `gain_only` does.
        vision: Precision of the tower of a backbone that takes pictures, "int8" or "fp32".
        tiles: Most tiles of a picture.

    Raises:
        ConfigError, ExportError: The checkpoint cannot be exported; every reason is named.
    """
    with require_extra("export"):
        import torch

        from lime_edge.method.registry import VARIANTS
    _check_output(output, overwrite)
    operators = native.installed().library if genai_operators else None
    base = checkpoint.read_config(directory).base
    if not (expert or VARIANTS[base].works_without_expert):
        raise ConfigError(f"skills on {base} need expert vectors; the graph cannot be exported without them")
    exact = VARIANTS[base].needs_exact_weights
    model, _, where = checkpoint.open_checkpoint(directory, torch.float32 if exact else torch.bfloat16)
    config = checkpoint.tuner(model).lime_config
    table = checkpoint.tuner(model).table()
    wanted = {"expert", "gain", "shift", *config.kinds} | ({"rank"} if rank_gate else set())
    wanted -= set() if expert else {"expert"}
    prompt = table.virtual_tokens > 0
    adapters = {} if prompt else checkpoint.shared_adapter(model)
    weights = AdapterWeights(
        modules=tuple(AdaptedModule(name, a, b, s) for name, (a, b, s) in adapters.items()),
        prefix=table.modules[0] if prompt else None,
        routing=replace(config.routing, experts=table.experts),
        kinds=table.kinds if prompt else tuple(kind for kind in KINDS if kind in wanted),
        gain_only=tuple(gain_only),
        routing_scale=config.routing_scale,
        backbone_name=str(config.base_model_name_or_path or ""),
        backbone_revision=str(config.revision or ""),
        backbone_digest=backbone.digest(where),
        adapter_digest=checkpoint.adapter_digest(model),
    )
    route = checkpoint.route_of(directory)
    del model, adapters  # the exporter loads the backbone itself
    return export(
        weights,
        where,
        output,
        precision,
        overwrite=overwrite,
        operators=operators,
        vision=vision,
        tiles=tiles,
        route=route,
    )


def _check_output(output: Path, overwrite: bool) -> None:
    """Reject, before the backbone is fetched and loaded, what the export would reject after it."""
    faults = list(output_faults(output, overwrite))
    try:
        check_writable(output.absolute().parent)
    except OSError as error:
        faults = faults or [f"nothing can be written to {output.absolute().parent}: {reason(error)}"]
    if faults:
        raise ExportError(f"nothing can be exported to {output}", faults)
