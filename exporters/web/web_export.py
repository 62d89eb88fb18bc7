"""Writes the directory that lime-edge-web loads, from an exported model directory. docs/web.md has the format."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import onnx_ir as ir

from lime_edge.common.scratch_folder import put_in_place, scratch_folder
from lime_edge.contract.model import ModelContract, read_contract
from lime_edge.contract.model_files import file_digest, file_faults
from lime_edge.contract.names import (
    GENAI_CONFIG,
    GRAPH_FILE,
    MODEL_JSON,
    SIGNATURE_SUFFIX,
    SKILL_SUFFIX,
    SKILLS_FOLDER,
    TOKENIZER_FILE,
    WEB_JSON,
    WEIGHTS_FILE,
)
from lime_edge.errors import ExportError
from lime_edge.exporters.passes.int8_products import Int8Products
from lime_edge.exporters.passes.lite_graph import LiteGraph
from lime_edge.exporters.passes.require_inputs import RequireInputs
from lime_edge.exporters.weights.parts import weight_parts
from lime_edge.runtime.text.prompts import Text
from lime_edge.skills.package import read_skill

from .chat_pieces import chat_pieces, has_template

WEB_FORMAT = 1
_WASM_GRAPH, _WASM_WEIGHTS = "wasm.onnx", "wasm.onnx.data"
_PRECISIONS = ("int4", "fp32")
_COPIED = (TOKENIZER_FILE, "tokenizer_config.json")


def export_web(source: Path, output: Path, *, overwrite: bool = False) -> ModelContract:
    """Convert a model directory for browsers and Node.

    Args:
        source: What `lime-edge export` writes, in int4 or fp32. It is only read. Its skills are copied, if it has some.
        output: Directory to create.
        overwrite: Replace the directory of an earlier export.

    Returns:
        The new lime.json. Backbone, adapter and module table have the digests of the source, so skills fit both.

    Raises:
        ExportError: The model cannot be converted; the error lists every reason. Nothing has been written.
        ModelError: `source` is no exported model.
    """
    contract = read_contract(source)
    faults = [*file_faults(source, contract)]
    if contract.precision not in _PRECISIONS:
        faults.append(f"its precision is {contract.precision}; expected {' or '.join(_PRECISIONS)}")
    if output.exists() and any(output.iterdir()) and not (overwrite and (output / MODEL_JSON).is_file()):
        faults.append(f"{output} is not empty; choose another directory or allow overwriting")
    if faults:
        raise ExportError(f"{source} cannot be exported for browsers to {output}", faults)
    output = output.absolute()
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with scratch_folder(output) as scratch:
            made = scratch / "made"
            made.mkdir()
            written = _write(source, contract, made)
            put_in_place(made, output, scratch)
    except OSError as error:
        raise ExportError(f"{output} cannot be written: {error.strerror or error}") from error
    return written


def _write(source: Path, contract: ModelContract, made: Path) -> ModelContract:
    config = json.loads((source / GENAI_CONFIG).read_text("utf-8"))["model"]
    eos = config["eos_token_id"]
    text = Text(source, eos if isinstance(eos, list) else [eos])
    pieces = chat_pieces(text) if has_template(text) else None
    model = ir.load(source / GRAPH_FILE)
    LiteGraph(contract.table.row_size)(model)
    RequireInputs()(model)
    ir.save(model, made / GRAPH_FILE, external_data=WEIGHTS_FILE)
    names = [GRAPH_FILE, WEIGHTS_FILE]
    shape = next(value for value in model.graph.outputs if value.name == "logits").shape
    assert shape is not None  # the builder declares it
    vocabulary = shape[-1]
    parts = weight_parts(model.graph)
    if Int8Products()(model).modified:
        ir.save(model, made / _WASM_GRAPH, external_data=_WASM_WEIGHTS)
        names += [_WASM_GRAPH, _WASM_WEIGHTS]
    written = ModelContract(
        backbone_name=contract.backbone_name,
        backbone_revision=contract.backbone_revision,
        backbone_digest=contract.backbone_digest,
        adapter_digest=contract.adapter_digest,
        precision=contract.precision,
        routing=contract.routing,
        table=contract.table,
        files=tuple((name, file_digest(made / name)) for name in names),
        sizes=tuple((name, (made / name).stat().st_size) for name in names),
        parts=parts,
    )
    (made / MODEL_JSON).write_text(written.to_json(), "utf-8")
    copied = [name for name in _COPIED if (source / name).is_file()]
    for name in copied:
        shutil.copyfile(source / name, made / name)
    decoder = config["decoder"]
    document = {
        "format": WEB_FORMAT,
        "context_length": config["context_length"],
        "vocabulary": vocabulary,
        "layers": decoder["num_hidden_layers"],
        "kv_heads": decoder["num_key_value_heads"],
        "head_size": decoder["head_size"],
        "end_id": text.end_id,
        "eos_ids": sorted(text.eos_ids),
        "chat": pieces,
        "variants": {
            "wasm": names[-2:],  # graph and weights
            "webgpu": names[:2],
            "node": names[:2],
        },
        "files": {name: _described(made / name) for name in copied},
        "skills": _copy_skills(source / SKILLS_FOLDER, made / SKILLS_FOLDER),
    }
    (made / WEB_JSON).write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", "utf-8")
    return written


def _described(file: Path) -> dict[str, Any]:
    return {"bytes": file.stat().st_size, "sha256": file_digest(file)}


def _copy_skills(source: Path, target: Path) -> list[dict[str, Any]]:
    """Copy the skills of a directory with their signatures; returns what a page shows of them before it loads one."""
    found = []
    for path in sorted(source.glob(f"*{SKILL_SUFFIX}")):
        manifest = read_skill(path).manifest
        target.mkdir(exist_ok=True)
        shutil.copyfile(path, target / path.name)
        signature = path.with_name(path.name + SIGNATURE_SUFFIX)
        if signature.is_file():
            shutil.copyfile(signature, target / signature.name)
        found.append(
            {
                "file": f"{SKILLS_FOLDER}/{path.name}",
                "name": manifest.name,
                "version": manifest.version,
                "description": manifest.description,
                "examples": list(manifest.interface.examples),
                **_described(path),
            }
        )
    return found
