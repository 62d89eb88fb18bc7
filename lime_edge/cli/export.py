"""The command `lime-edge export`: a checkpoint becomes a model directory for ONNX Runtime."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click

from lime_edge.common.extras import require_extra
from lime_edge.common.scratch_folder import scratch_folder
from lime_edge.contract.names import MODEL_JSON
from lime_edge.reports.tables import report
from lime_edge.training.quiet import silence_libraries

from .options import json_option, name_list, path_type


@click.command()
@click.argument("checkpoint", type=path_type())
@click.option("-o", "--output", required=True, metavar="DIR", type=path_type(), help="The model directory to create.")
@click.option(
    "--precision",
    type=click.Choice(["int4", "fp16", "fp32"]),
    default="int4",
    show_default=True,
    help="Precision of the weights; int4 is the smallest and fastest.",
)
@click.option("--rank-gate", is_flag=True, help="Also accept skills learned with --rank-gate.")
@click.option(
    "--gain-only",
    default="",
    metavar="NAMES",
    help="Projections of which skills contain only the gain, as in learn --gain-only; saves memory and time.",
)
@click.option(
    "--expert/--no-expert",
    default=True,
    show_default=True,
    help="Accept expert vectors; skills with one expert have none, and need less memory without.",
)
@click.option("--overwrite", is_flag=True, help="Replace an existing model directory.")
@click.option(
    "--genai-operators",
    is_flag=True,
    help="Copy this machine's native operators beside the model, for ONNX Runtime GenAI; lime-edge has its own.",
)
@click.option(
    "--vision",
    type=click.Choice(["int8", "fp32"]),
    default="int8",
    show_default=True,
    help="Precision of the tower of a model that takes pictures.",
)
@click.option(
    "--tiles",
    default=1,
    show_default=True,
    metavar="N",
    help="Most tiles of a picture: more show more detail and take longer.",
)
@click.option(
    "--target",
    "platform",
    type=click.Choice(["native", "web"]),
    default="native",
    show_default=True,
    help="Where the model runs; web is for lime-edge-web in browsers and Node, and also takes a model directory.",
)
@json_option
def export(
    checkpoint: Path,
    output: Path,
    precision: Any,
    rank_gate: bool,
    gain_only: str,
    expert: bool,
    overwrite: bool,
    genai_operators: bool,
    vision: Any,
    tiles: int,
    platform: str,
    target: str | None,
) -> None:
    """Export a checkpoint to a directory that runs without torch."""
    if platform == "web" and (checkpoint / MODEL_JSON).is_file():
        _export_web(checkpoint, output, overwrite, target)
        return
    with require_extra("export"):
        from lime_edge.training.export_checkpoint import export_checkpoint
    from lime_edge.reports.describe import describe_model

    with ExitStack() as scratch, silence_libraries():
        folder = scratch.enter_context(scratch_folder(output.absolute())) / "model" if platform == "web" else output
        export_checkpoint(
            checkpoint,
            folder,
            precision,
            rank_gate,
            overwrite,
            genai_operators,
            name_list(gain_only),
            expert,
            vision,
            tiles,
        )
        if platform == "web":
            _export_web(folder, output, overwrite, target)
            return
    document, tables = describe_model(output)
    report(document, tables, target)


def _export_web(source: Path, output: Path, overwrite: bool, target: str | None) -> None:
    """Convert an exported model and report on the result."""
    with require_extra("export"):
        from lime_edge.exporters.web.web_export import export_web
    from lime_edge.reports.describe import describe_model

    export_web(source, output, overwrite=overwrite)
    report(*describe_model(output), target)
