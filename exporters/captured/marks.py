"""Marks adapted modules while torch captures a forward pass, so that their inputs and outputs are found in the graph.

A mark becomes a node of a domain of its own, which `take_marks` removes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import onnx_ir as ir
import torch
from torch import Tensor

from lime_edge.errors import ExportError

_DOMAIN = "lime_edge.mark"


class Marked(NamedTuple):
    """One call of an adapted module in a graph."""

    module: int  # position in the list of names
    x: ir.Value  # [B, S, D]
    y: ir.Value  # [B, S, H]


@contextlib.contextmanager
def marked(model: torch.nn.Module, names: Sequence[str]) -> Iterator[None]:
    """Mark every call of the named modules inside of the context; the modules are the same afterwards.

    A module sees its input as rows of tokens: the first dimension are rows, those between it and the last are tokens.
    """
    handles = []
    try:
        for number, name in enumerate(names):
            handles.append(model.get_submodule(name).register_forward_hook(_hook(number, name)))
        yield
    finally:
        for handle in handles:
            handle.remove()


def _hook(number: int, name: str) -> Callable[..., Tensor]:
    def hook(_: torch.nn.Module, args: tuple[Any, ...], y: Tensor) -> Tensor:
        if not args or not isinstance(args[0], Tensor) or args[0].dim() < 2:
            raise ExportError(f"{name}: its input is not a tensor [..., D] of rows; adapt other modules")
        given, found = rows(args[0]), rows(y)
        out = torch.onnx.ops.symbolic(
            f"{_DOMAIN}::Mark", (given, found), {"module": number}, dtype=y.dtype, shape=found.shape, version=1
        )
        return out.reshape(y.shape)

    return hook


def rows(x: Tensor) -> Tensor:
    """[B, ..., D] as [B, S, D]; a row without tokens has one."""
    if x.dim() == 3:
        return x
    return x[:, None] if x.dim() == 2 else x.flatten(1, -2)


def take_marks(model: ir.Model) -> list[Marked]:
    """Remove the marks from a graph, and return what they mark, in the order of the graph.

    Raises:
        ExportError: A mark is inside of a loop or a branch.
    """
    graph = model.graph
    found = []
    for node in [node for node in graph.all_nodes() if node.domain == _DOMAIN]:
        if node.graph is not graph:
            raise ExportError("an adapted module is inside of a loop or a branch of the graph; adapt other modules")
        x, y = node.inputs
        assert x is not None  # what a mark is
        assert y is not None
        found.append(Marked(node.attributes["module"].as_int(), x, y))
        for user, index in tuple(node.outputs[0].uses()):
            user.replace_input_with(index, y)
        _keep_output(graph, node, y)
        graph.remove(node, safe=True)
    model.opset_imports.pop(_DOMAIN, None)
    return found


def _keep_output(graph: ir.Graph, mark: ir.Node, y: ir.Value) -> None:
    """Where a mark gives an output of the graph, let an Identity give it, whose input an operator can replace."""
    marked = mark.outputs[0]
    for place, output in enumerate(tuple(graph.outputs)):
        if output is marked:
            kept = ir.Value(name=marked.name, type=marked.type, shape=marked.shape)
            marked.name = f"{marked.name}/marked"
            graph.insert_after(mark, ir.Node("", "Identity", [y], outputs=[kept], name=f"/{kept.name}/Identity"))
            graph.outputs[place] = kept
