"""`lime-edge export`: a checkpoint as numbers for the exporter. Where torch ends and ONNX begins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from lime_edge.common.extras import require_extra
from lime_edge.contract.model import ModelContract
from lime_edge.contract.vector_kinds import KINDS
from lime_edge.errors import ConfigError
from lime_edge.runtime.native import operators as native

from . import backbone, checkpoint

with require_extra("export"):
    from lime_edge.exporters import AdaptedModule, AdapterWeights, Precision, export


def export_checkpoint(
    directory: Path,
    output: Path,
    precision: Precision = "int4",
    rank_gate: bool = False,
    overwrite: bool = False,
    genai_operators: bool = False,
    gain_only: Sequence[str] = (),
    expert: bool = True,
) -> ModelContract:
    """Export a checkpoint as a model directory.

    Args:
        directory: The checkpoint.
        output: The directory to make.
        precision: "int4", "fp16" or "fp32".
        rank_gate: Give the graph the rank gate even if the checkpoint has none, for skills that do.
        overwrite: Replace `output` if it is there.
        gain_only: Projections of which the graph takes the gain of a skill and nothing else: less memory for a skill
            and less time for a token, and no place for skills that hold more of them, as the checkpoint's own may.
        expert: Whether the graph takes expert vectors; skills of one expert are learned without. As `gain_only`.
        genai_operators: Put this installation's native operators beside the model, for ONNX Runtime GenAI.

    Raises:
        ConfigError, ExportError: naming every reason why it cannot be exported.
    """
    with require_extra("export"):
        import torch

        from lime_edge.method.registry import VARIANTS
    operators = native.installed().library if genai_operators else None
    base = checkpoint.read_config(directory).base
    if not (expert or VARIANTS[base].works_without_expert):
        raise ConfigError(f"skills on {base} rest on expert vectors: the graph cannot do without them")
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
    return export(weights, where, output, precision, overwrite=overwrite, operators=operators)
