"""Exports a backbone directory and a shared adapter to a model directory.

Validates the inputs, builds the backbone graph, adapts it and writes the directory. The output appears atomically.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import onnx_ir as ir

from lime_edge.contract.model import ModelContract
from lime_edge.contract.names import GRAPH_FILE, MODEL_JSON, WEIGHTS_FILE
from lime_edge.errors import ExportError
from lime_edge.exporters.weights.adapter_weights import AdapterWeights

from .adapt_graph import adapt_graph
from .backbone_checks import backbone_faults
from .genai_builder import PRECISIONS, Precision, build_backbone
from .genai_config import place_operators

_FROM_BACKBONE = ("generation_config.json", "config.json", "chat_template.jinja")


def export(
    adapter: AdapterWeights,
    backbone: Path,
    output: Path,
    precision: Precision = "int4",
    *,
    overwrite: bool = False,
    operators: Path | None = None,
) -> ModelContract:
    """Export a backbone with a shared adapter baked in, ready for skills.

    The same arguments give the same bytes. Neither the adapter nor the backbone directory is changed.

    Args:
        adapter: The shared adapter and the settings that it was trained with.
        backbone: Local directory in the Hugging Face layout, with safetensors weights.
        output: Directory to create; it may exist if it is empty.
        precision: ``int4``, ``fp16`` or ``fp32``, for the CPU provider.
        overwrite: Replace the directory of an earlier export.
        operators: Library of native operators to copy into the directory, for ONNX Runtime GenAI.

    Returns:
        The content of ``lime.json``.

    Raises:
        ExportError: The export is impossible; the error lists every reason. Nothing has been written.
        MissingExtraError: onnxruntime-genai is not installed.
    """
    faults = [*adapter.faults(), *backbone_faults(backbone, adapter.modules), *_output_faults(output, overwrite)]
    if precision not in PRECISIONS:
        faults.append(f"precision is {precision!r}; expected one of {', '.join(PRECISIONS)}")
    if faults:
        raise ExportError(f"{backbone} cannot be exported to {output}", faults)
    output = output.absolute()
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=f".{output.name}-") as scratch:
        plain, made = Path(scratch) / "plain", Path(scratch) / "made"
        build_backbone(backbone, plain, precision)
        contract = _write(adapter, plain, backbone, made, precision)
        if operators is not None:
            place_operators(made, operators)
        _put_in_place(made, output, Path(scratch) / "old")
    return contract


def _output_faults(output: Path, overwrite: bool) -> Iterator[str]:
    if output.is_dir():
        if any(output.iterdir()) and not overwrite:
            yield f"{output} is not empty; choose another directory or allow overwriting"
        elif any(output.iterdir()) and not (output / MODEL_JSON).is_file():
            yield f"{output} holds no exported model and cannot be overwritten; choose another directory"
    elif output.exists():
        yield f"{output} is not a directory"


def _write(adapter: AdapterWeights, plain: Path, backbone: Path, made: Path, precision: Precision) -> ModelContract:
    """Fill `made` with the adapted graph and the other files from `plain`, the model builder's output."""
    made.mkdir()
    model = ir.load(plain / GRAPH_FILE)
    table = adapt_graph(model, adapter, half=precision == "int4")
    ir.save(model, made / GRAPH_FILE, external_data=WEIGHTS_FILE)
    contract = ModelContract(
        backbone_name=adapter.backbone_name,
        backbone_revision=adapter.backbone_revision,
        backbone_digest=adapter.backbone_digest,
        adapter_digest=adapter.adapter_digest,
        precision=precision,
        routing=adapter.routing,
        table=table,
        files=tuple((name, _digest(made / name)) for name in (GRAPH_FILE, WEIGHTS_FILE)),
    )
    for path in sorted(plain.iterdir()):
        if path.name not in (GRAPH_FILE, WEIGHTS_FILE):
            shutil.copyfile(path, made / path.name)
    for name in _FROM_BACKBONE:
        if (backbone / name).is_file() and not (made / name).exists():
            shutil.copyfile(backbone / name, made / name)
    (made / MODEL_JSON).write_text(contract.to_json(), "utf-8")
    return contract


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _put_in_place(made: Path, output: Path, old: Path) -> None:
    """Rename `made` to `output`. A directory that it replaces moves to `old`, and back if the rename fails."""
    if output.exists():
        output.rename(old)
    try:
        made.rename(output)
    except OSError:
        if old.exists():
            old.rename(output)
        raise
