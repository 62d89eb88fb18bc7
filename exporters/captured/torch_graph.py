"""Exports the forward pass of a torch module as an ONNX graph, by torch.onnx's exporter for captured programs."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Mapping, Sequence
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
        dynamic: Dimensions that vary, by argument and axis, as `torch.export.Dim`.

    Returns:
        The graph, without paths of this machine.

    Raises:
        ExportError: torch cannot capture the forward pass; the message ends with its reason.
    """
    shapes = {name: dict(dynamic.get(name, {})) for name in arguments}
    try:
        with _silence(), torch.no_grad():
            program = torch.onnx.export(
                module,
                kwargs=dict(arguments),
                input_names=list(arguments),
                output_names=list(outputs),
                dynamic_shapes=shapes,
                dynamo=True,
                opset_version=OPSET,
                verbose=False,
            )
    except Exception as error:  # torch.export raises many unrelated classes
        reason = str(error).strip().splitlines()
        raise ExportError(
            f"torch cannot export {type(module).__name__}: {type(error).__name__}: {' '.join(reason[:3])}"
        ) from error
    assert program is not None  # with dynamo=True
    model = program.model
    _strip(model)
    return model


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
