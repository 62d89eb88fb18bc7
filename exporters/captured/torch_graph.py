"""Exports the forward pass of a torch module as an ONNX graph, by torch.onnx's exporter for captured programs."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import onnx_ir as ir
import torch

from lime_edge.errors import ExportError

OPSET = 21  # the oldest that the LiME functions are written for


def torch_graph(
    module: torch.nn.Module,
    arguments: Mapping[str, torch.Tensor],
    outputs: Sequence[str],
    dynamic: Mapping[str, Mapping[int, Any]],
) -> ir.Model:
    """Export a module.

    Args:
        module: In evaluation mode. It is not changed.
        arguments: Example arguments of its forward pass by name; they become the graph's inputs, in this order.
        outputs: Names of the graph's outputs.
        dynamic: Dimensions that vary, by argument and axis: a `torch.export.Dim`, or a name.

    Returns:
        The graph, without paths of this machine.

    Raises:
        ExportError: torch cannot capture the forward pass; the message ends with its reason.
    """
    named: dict[Any, Any] = {}  # one Dim for each name
    shapes = tuple(
        {axis: _dimension(size, named) for axis, size in dynamic.get(name, {}).items()} for name in arguments
    )
    try:
        with _silence(), torch.no_grad():
            program = torch.onnx.export(
                _Named(module, arguments, outputs).eval(),
                tuple(arguments.values()),
                input_names=list(arguments),
                output_names=list(outputs),
                dynamic_shapes=(shapes,),
                dynamo=True,
                opset_version=OPSET,
                verbose=False,
            )
    except ExportError:
        raise
    except Exception as error:  # torch.export raises many unrelated classes
        raise ExportError(f"torch cannot export {type(module).__name__}: {_reason(error)}") from error
    assert program is not None  # with dynamo=True
    model = program.model
    _strip(model)
    if fixed := list(_fixed(model, dynamic)):
        raise ExportError(f"torch cannot export {type(module).__name__} for other sizes", fixed)
    return model


def _reason(error: BaseException) -> str:
    """The first line of the first error in a chain: those raised from it only say where."""
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0][:400]}"


def _fixed(model: ir.Model, dynamic: Mapping[str, Mapping[int, Any]]) -> Iterator[str]:
    """Dimensions that should vary and do not: torch fixes a size that the forward pass reads as a number."""
    inputs = {value.name: value for value in model.graph.inputs}
    for name, axes in dynamic.items():
        shape = inputs[name].shape if name in inputs else None
        for axis in axes:
            if shape is not None and isinstance(shape[axis], int):
                yield f"axis {axis} of {name} is always {shape[axis]}: the forward pass depends on it"


def _dimension(size: Any, named: dict[Any, Any]) -> Any:
    if not isinstance(size, str):
        return size
    return named.setdefault(size, torch.export.Dim(size, min=1))


class _Named(torch.nn.Module):
    """A module with positional arguments and named outputs in their order."""

    def __init__(self, module: torch.nn.Module, arguments: Mapping[str, Any], outputs: Sequence[str]) -> None:
        super().__init__()
        self.module, self.arguments, self.outputs = module, tuple(arguments), tuple(outputs)

    def forward(self, *args: torch.Tensor) -> tuple[torch.Tensor, ...]:
        found = named_outputs(self.module(**dict(zip(self.arguments, args, strict=True))))
        if any(name not in found for name in self.outputs):
            return tuple(found.values())  # names of the caller's for outputs in order
        return tuple(found[name] for name in self.outputs)


def named_outputs(output: Any) -> dict[str, torch.Tensor]:
    """The tensors that a forward pass returned: by their names in a mapping, otherwise by their position."""
    if isinstance(output, torch.Tensor):
        return {"output": output}
    pairs = output.items() if isinstance(output, Mapping) else ((f"output_{i}", x) for i, x in enumerate(output))
    return {str(name): value for name, value in pairs if isinstance(value, torch.Tensor)}


def _strip(model: ir.Model) -> None:
    """Remove what the exporter notes of its own run: stack traces with paths, names of torch's nodes."""
    model.metadata_props.clear()
    model.doc_string = None
    model.producer_name, model.producer_version = "lime-edge", ""
    graph = model.graph
    graph.metadata_props.clear()
    graph.doc_string = None
    for node in graph.all_nodes():
        node.metadata_props.clear()
        node.doc_string = None
        for value in node.outputs:
            value.metadata_props.clear()
    for value in (*graph.inputs, *graph.initializers.values()):
        value.metadata_props.clear()


@contextlib.contextmanager
def _silence() -> Any:
    """Hide the exporter's progress lines, its warnings about itself and its log."""
    root = logging.getLogger()
    before = root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with (
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
