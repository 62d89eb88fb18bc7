"""Exports a backbone directory and a shared adapter to a model directory.

Validates the inputs, builds the backbone graph, adapts it and writes the directory. The output appears atomically.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import onnx_ir as ir

from lime_edge.common.scratch_folder import put_in_place, scratch_folder
from lime_edge.contract.model import ModelContract
from lime_edge.contract.model_files import file_digest
from lime_edge.contract.names import GRAPH_FILE, MODEL_JSON, ROUTE_FILE, WEIGHTS_FILE
from lime_edge.contract.route_settings import RouteSettings
from lime_edge.errors import ExportError
from lime_edge.exporters.passes.insert_features import InsertFeatures
from lime_edge.exporters.passes.quantise_embedding import QuantiseEmbedding
from lime_edge.exporters.towers.kinds import VISION_PRECISIONS, VisionPrecision, sees
from lime_edge.exporters.weights.adapter_weights import AdapterWeights
from lime_edge.exporters.weights.parts import weight_parts

from .adapt_graph import adapt_graph
from .backbone_checks import backbone_faults
from .genai_builder import PRECISIONS, Precision, build_backbone
from .genai_config import place_operators

if TYPE_CHECKING:
    from lime_edge.exporters.towers.vision_model import VisionModel

_HASHED = (GRAPH_FILE, WEIGHTS_FILE)
_FROM_BACKBONE = ("generation_config.json", "config.json", "chat_template.jinja")


def export(
    adapter: AdapterWeights,
    backbone: Path,
    output: Path,
    precision: Precision = "int4",
    *,
    overwrite: bool = False,
    operators: Path | None = None,
    vision: VisionPrecision = "int8",
    tiles: int = 1,
    route: tuple[RouteSettings, Path] | None = None,
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
        vision: Precision of the tower, if the backbone takes pictures: ``int8`` or ``fp32``. Its features and the
            decoder's logits are compared with transformers.
        tiles: Most tiles of a picture (`lime_edge.exporters.towers.contracts.vision_contract`).
        route: How a skill is chosen by the request, and the file of statistics; None: it cannot be.

    Returns:
        The content of ``lime.json``.

    Raises:
        ExportError: The export is impossible; the error lists every reason. Nothing has been written.
        MissingExtraError: onnxruntime-genai is not installed.
    """
    pictures = sees(backbone)
    own = () if pictures else adapter.modules  # those of a model that sees are checked when it is loaded
    faults = [*adapter.faults(), *backbone_faults(backbone, own, not pictures), *output_faults(output, overwrite)]
    if vision not in VISION_PRECISIONS:
        faults.append(f"vision is {vision!r}; expected one of {', '.join(VISION_PRECISIONS)}")
    if precision not in PRECISIONS:
        faults.append(f"precision is {precision!r}; expected one of {', '.join(PRECISIONS)}")
    if faults:
        raise ExportError(f"{backbone} cannot be exported to {output}", faults)
    model = _open_vision(backbone, adapter, tiles) if pictures else None
    output = output.absolute()
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with scratch_folder(output) as scratch:
            plain, made = scratch / "plain", scratch / "made"
            decoder = backbone if model is None else model.save_decoder(scratch / "decoder")
            build_backbone(decoder, plain, precision)
            made.mkdir()
            seen = () if model is None else model.write(made, vision)
            contract = _write(adapter, plain, backbone, made, precision, seen, None if route is None else route[0])
            if route is not None:
                shutil.copyfile(route[1], made / ROUTE_FILE)
            if operators is not None:
                place_operators(made, operators)
            if model is not None:
                model.check_decoder(made, precision)
            put_in_place(made, output, scratch)
    except OSError as error:
        raise ExportError(f"{output} cannot be written: {error.strerror or error}") from error
    return contract


def _open_vision(backbone: Path, adapter: AdapterWeights, tiles: int) -> VisionModel:
    from lime_edge.exporters.towers.vision_model import VisionModel  # loads torch

    model = VisionModel.open(backbone, tiles)
    if faults := list(model.module_faults(adapter.modules)):
        raise ExportError(f"the adapter cannot be exported with {backbone}", faults)
    return model


def _parts(graph: ir.Graph, made: Path, seen: tuple[str, ...]) -> tuple[tuple[str, int], ...]:
    """The bytes of every part of the weights, the tower's included, largest first."""
    tower = [("vision tower", sum((made / name).stat().st_size for name in seen))] if seen else []
    return tuple(sorted([*weight_parts(graph), *tower], key=lambda part: (-part[1], part[0])))


def output_faults(output: Path, overwrite: bool) -> Iterator[str]:
    """Reasons why an export must not be written to a directory, which may not exist yet."""
    try:
        names = os.listdir(output)
    except FileNotFoundError:
        return
    except NotADirectoryError:
        yield f"{output} is not a directory, or lies below a file"
    except OSError as error:
        yield f"{output} cannot be read: {error.strerror or error}"
    else:
        if names and not overwrite:
            yield f"{output} is not empty; choose another directory or allow overwriting"
        elif names and MODEL_JSON not in names:
            yield f"{output} holds no exported model and cannot be overwritten; choose another directory"


def _write(
    adapter: AdapterWeights,
    plain: Path,
    backbone: Path,
    made: Path,
    precision: Precision,
    seen: tuple[str, ...],
    route: RouteSettings | None = None,
) -> ModelContract:
    """Fill `made` with the adapted graph and the other files from `plain`, the model builder's output.

    `seen` names the files that the tower has already written there, if the model takes pictures.
    """
    model = ir.load(plain / GRAPH_FILE)
    # The builder appends the commit of the Git repository that it is called in: bytes would depend on the folder.
    model.producer_version = (model.producer_version or "").partition("+")[0]
    if precision == "int4":
        QuantiseEmbedding()(model)
    if seen:
        InsertFeatures()(model)
    table = adapt_graph(model, adapter, precision == "int4", None if route is None else route.layer)
    ir.save(model, made / GRAPH_FILE, external_data=WEIGHTS_FILE)
    contract = ModelContract(
        backbone_name=adapter.backbone_name,
        backbone_revision=adapter.backbone_revision,
        backbone_digest=adapter.backbone_digest,
        adapter_digest=adapter.adapter_digest,
        precision=precision,
        routing=adapter.routing,
        table=table,
        files=tuple((name, file_digest(made / name)) for name in sorted((*_HASHED, *seen))),
        sizes=tuple((name, (made / name).stat().st_size) for name in sorted((*_HASHED, *seen))),
        parts=_parts(model.graph, made, seen),
        route=route,
    )
    for path in sorted(plain.iterdir()):
        if path.name not in _HASHED:
            shutil.copyfile(path, made / path.name)
    for name in _FROM_BACKBONE:
        if (backbone / name).is_file() and not (made / name).exists():
            shutil.copyfile(backbone / name, made / name)
    (made / MODEL_JSON).write_text(contract.to_json(), "utf-8")
    return contract
