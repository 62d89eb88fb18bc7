"""Marks show where adapted modules are in a captured graph, and leave no trace."""

from __future__ import annotations

import onnx_ir as ir
import pytest
import torch
from torch import Tensor

from lime_edge.errors import ExportError
from lime_edge.exporters.captured.marks import marked, rows, take_marks
from lime_edge.exporters.captured.torch_graph import torch_graph


class Twice(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.shared, self.last = torch.nn.Linear(4, 4), torch.nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.last(self.shared(self.shared(x).relu()).mean(1))
        return out


def test_every_call_is_found_once_and_the_graph_stays_the_same() -> None:
    module, example = Twice().eval(), {"x": torch.ones(2, 5, 4)}
    plain = torch_graph(module, example, ("y",), {})
    with marked(module, ["last", "shared"]):
        graph = torch_graph(module, example, ("y",), {})
    marks = take_marks(graph)
    assert [mark.module for mark in marks] == [1, 1, 0]
    assert [list(mark.x.shape or ()) for mark in marks] == [[2, 5, 4], [2, 5, 4], [2, 1, 4]]
    assert [list(mark.y.shape or ()) for mark in marks] == [[2, 5, 4], [2, 5, 4], [2, 1, 3]]
    assert {node.domain for node in graph.graph.all_nodes()} == {""}
    kinds = ("MatMul", "Gemm", "Relu", "ReduceMean")
    found, expected = ([n.op_type for n in one.graph if n.op_type in kinds] for one in (graph, plain))
    assert found == expected
    assert take_marks(graph) == []
    ir.passes.common.CheckerPass()(graph)


class Last(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.last = torch.nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.last(x)
        return out


def test_a_marked_output_of_the_graph_keeps_its_name() -> None:
    module = Last().eval()
    with marked(module, ["last"]):
        graph = torch_graph(module, {"x": torch.ones(2, 5, 4)}, ("y",), {})
    (mark,) = take_marks(graph)
    (output,) = graph.graph.outputs
    producer = output.producer()
    assert output.name == "y"
    assert producer is not None
    assert (producer.op_type, list(producer.inputs)) == ("Identity", [mark.y])


def test_the_module_is_the_same_afterwards() -> None:
    module = Twice().eval()
    with pytest.raises(KeyError), marked(module, ["last"]):
        raise KeyError
    assert not module.last._forward_hooks


def test_rows_of_tokens() -> None:
    shapes = {(2, 4): (2, 1, 4), (2, 3, 4): (2, 3, 4), (2, 3, 5, 4): (2, 15, 4), (2, 3, 5, 7, 4): (2, 105, 4)}
    assert {shape: tuple(rows(torch.zeros(shape)).shape) for shape in shapes} == shapes


def test_a_module_without_rows_is_refused() -> None:
    module = Last().eval()
    with marked(module, ["last"]), pytest.raises(ExportError, match=r"last: its input is not a tensor \[\.\.\., D\]"):
        torch_graph(module, {"x": torch.ones(4)}, ("y",), {})
