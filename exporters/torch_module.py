"""Exports any torch module with a shared adapter: its forward pass as a graph with the operators of a decoder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import onnxruntime as ort

from lime_edge.common.scratch_folder import put_in_place, scratch_folder
from lime_edge.contract.model import ModelContract
from lime_edge.contract.model_files import file_digest
from lime_edge.contract.module_table import Module, ModuleTable
from lime_edge.contract.names import BANK, GRAPH_FILE, MODEL_JSON, SKILL_IDS, WEIGHTS_FILE
from lime_edge.errors import ExportError
from lime_edge.exporters.passes.declare_inputs import DeclareInputs
from lime_edge.exporters.passes.insert_operators import InsertOperators, Target
from lime_edge.exporters.weights.adapter_weights import AdaptedModule, AdapterWeights
from lime_edge.exporters.weights.parts import weight_parts

from .export import output_faults

Array = npt.NDArray[Any]
LIMIT = 1e-3  # largest difference to torch, as a share of the largest output
_FLOAT = ir.DataType.FLOAT
_ROWS = 2  # least size of a dimension that varies, in the example: torch takes 1 for a constant
_FILES = (GRAPH_FILE, WEIGHTS_FILE)


@dataclass(frozen=True)
class Example:
    """One call of a module, with the outputs that its export must give.

    Attributes:
        inputs: Arguments of the forward pass by name.
        dynamic: Axes that vary and what they are called, by argument; others stay as they are in `inputs`.
        base: Outputs of the module without a skill, by name.
        vectors: Vectors of a skill, ``<kind>.<module>``.
        skilled: Outputs with them.
    """

    inputs: Mapping[str, Any]  # tensors of torch
    dynamic: Mapping[str, Mapping[int, str]]
    base: Mapping[str, Array]
    vectors: Mapping[str, npt.NDArray[np.float32]]
    skilled: Mapping[str, Array]


def export_module(
    module: Any, adapter: AdapterWeights, example: Example, output: Path, *, overwrite: bool = False
) -> ModelContract:
    """Export a module in fp32 with a shared adapter baked in, ready for skills.

    Args:
        module: A torch.nn.Module in evaluation mode, without the adapter; it is not changed.
        adapter: The shared adapter; its modules are named as in `module`.
        example: A call to capture, and to compare the export with.
        output: Directory to create; it may exist if it is empty.
        overwrite: Replace the directory of an earlier export.

    Returns:
        The content of ``lime.json``.

    Raises:
        ExportError: The export is impossible, or its outputs are not those of torch; names every reason. Nothing has
            been written.
    """
    faults = [*adapter.faults(), *_module_faults(module, adapter), *_example_faults(example)]
    faults += output_faults(output, overwrite)
    if faults:
        raise ExportError(f"{type(module).__name__} cannot be exported to {output}", faults)
    model, table = _adapted(module, adapter, example)
    output = output.absolute()
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with scratch_folder(output) as scratch:
            made = scratch / "made"
            made.mkdir()
            ir.save(model, made / GRAPH_FILE, external_data=WEIGHTS_FILE)
            if faults := list(_differences(made, table, example)):
                raise ExportError(f"the graph of {type(module).__name__} is not what torch computes", faults)
            files = [name for name in sorted(_FILES) if (made / name).exists()]
            contract = ModelContract(
                backbone_name=adapter.backbone_name,
                backbone_revision=adapter.backbone_revision,
                backbone_digest=adapter.backbone_digest,
                adapter_digest=adapter.adapter_digest,
                precision="fp32",
                routing=adapter.routing,
                table=table,
                files=tuple((name, file_digest(made / name)) for name in files),
                sizes=tuple((name, (made / name).stat().st_size) for name in files),
                parts=weight_parts(model.graph),
            )
            (made / MODEL_JSON).write_text(contract.to_json(), "utf-8")
            put_in_place(made, output, scratch)
    except OSError as error:
        raise ExportError(f"{output} cannot be written: {error.strerror or error}") from error
    return contract


def _adapted(module: Any, adapter: AdapterWeights, example: Example) -> tuple[ir.Model, ModuleTable]:
    """The captured graph with the operators, and the layout of its bank: the modules in the adapter's order."""
    from lime_edge.exporters.captured.marks import marked, take_marks  # load torch
    from lime_edge.exporters.captured.torch_graph import torch_graph

    names = [one.name for one in adapter.modules]
    with marked(module, names):
        model = torch_graph(module, example.inputs, tuple(example.base), example.dynamic)
    marks = take_marks(model)
    if missing := sorted(set(range(len(names))) - {mark.module for mark in marks}):
        unused = [f"{names[number]}: the forward pass does not use it" for number in missing]
        raise ExportError(f"{type(module).__name__} cannot be exported with this adapter", unused)
    table = ModuleTable(
        tuple(Module(own.name, own.out_features, own.rank) for own in adapter.modules),
        adapter.routing.experts,
        adapter.kinds,
        frozenset(own.name for own in adapter.modules if own.name.rpartition(".")[2] in adapter.gain_only),
    )
    calls: Counter[str] = Counter()
    targets = []
    for mark in marks:
        own: AdaptedModule = adapter.modules[mark.module]
        calls[own.name] += 1
        again = f"/{calls[own.name]}" if calls[own.name] > 1 else ""
        targets.append(Target(mark.x, mark.y, f"/{own.name}{again}/LimeLinear", (own,)))
    DeclareInputs(table, adapter.routing, _FLOAT, _FLOAT)(model)
    InsertOperators(targets, table, adapter.routing, _FLOAT, _FLOAT)(model)
    model.graph.sort()
    return model, table


def _differences(directory: Path, table: ModuleTable, example: Example) -> Iterator[str]:
    """Outputs that are not those of torch, without and with the example's skill."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(directory / GRAPH_FILE, options, providers=["CPUExecutionProvider"])
    given = {name: tensor.numpy() for name, tensor in example.inputs.items()}
    bank, ids = table.bank([example.vectors])
    skill = {BANK: bank, SKILL_IDS: ids[1:, None]}
    for what, fed, expected in (("without a skill", {}, example.base), ("with a skill", skill, example.skilled)):
        names: Sequence[str] = list(expected)
        for name, found in zip(names, session.run(names, given | fed), strict=True):
            off = _off(found, expected[name])
            if not off <= LIMIT:
                yield f"{name} {what} differs by {off:.3g} of the largest value; expected at most {LIMIT:g}"


def _off(found: Array, expected: Array) -> float:
    if found.shape != expected.shape:
        return float("inf")
    largest = float(np.abs(expected).max(initial=0)) or 1.0
    return float(np.abs(found.astype(np.float64) - expected).max(initial=0)) / largest


def _module_faults(module: Any, adapter: AdapterWeights) -> Iterator[str]:
    found = dict(module.named_modules())
    for own in adapter.modules:
        if own.name not in found:
            yield f"{own.name}: the model has no such module"
    if adapter.prefix is not None:
        yield "a soft prefix needs a language model; adapt modules instead"
    if module.training:
        yield "the module is in training mode; call eval() first"


def _example_faults(example: Example) -> Iterator[str]:
    for name, axes in example.dynamic.items():
        if name not in example.inputs:
            yield f"dynamic names {name}; the inputs are {', '.join(example.inputs)}"
            continue
        shape = tuple(example.inputs[name].shape)
        for axis in axes:
            if not 0 <= axis < len(shape) or shape[axis] < _ROWS:
                yield f"{name} is {list(shape)}, its axis {axis} varies; expected at least {_ROWS} in the example"
    if not example.base:
        yield "the forward pass returns no tensor"
