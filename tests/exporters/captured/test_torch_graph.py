"""Graphs captured from torch modules."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch
from torch import Tensor

from lime_edge.errors import ExportError
from lime_edge.exporters.captured.torch_graph import torch_graph


class Sums(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = torch.nn.Linear(3, 2)

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        return self.inner(x) + y, x.sum(0)


class Decides(torch.nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if float(x.sum()) > 0 else -x


def test_inputs_outputs_and_sizes(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    module = Sums().eval()
    rows = torch.export.Dim("rows", min=1, max=9)
    example = {"x": torch.ones(2, 3), "y": torch.ones(2)}
    graph = torch_graph(module, example, ("a", "b"), {"x": {0: rows}})
    assert capfd.readouterr() == ("", "")
    ir.save(graph, tmp_path / "model.onnx")
    session = ort.InferenceSession(tmp_path / "model.onnx")
    assert [value.name for value in session.get_inputs()] == ["x", "y"]
    x, y = np.random.default_rng(0).standard_normal((5, 3), np.float32), np.ones(2, np.float32)
    found = session.run(["a", "b"], {"x": x, "y": y})
    with torch.no_grad():
        expected = module(torch.from_numpy(x), torch.from_numpy(y))
    assert all(np.allclose(one, other.numpy(), atol=1e-6) for one, other in zip(found, expected, strict=True))


def test_nothing_of_this_machine_is_in_the_graph() -> None:
    graph = torch_graph(Sums().eval(), {"x": torch.ones(2, 3), "y": torch.ones(2)}, ("a", "b"), {})
    text = ir.to_proto(graph).SerializeToString()
    assert b"test_torch_graph" not in text
    assert b"site-packages" not in text


class Counts(torch.nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * len(x)


def test_a_size_that_the_forward_pass_reads_is_refused() -> None:
    graph = torch_graph(Counts(), {"x": torch.ones(2, 3)}, ("a",), {"x": {1: "width"}}).graph
    assert graph.inputs[0].shape is not None
    assert graph.inputs[0].shape[0] == 2
    with pytest.raises(ExportError, match="axis 0 of x is always 2: the forward pass depends on it"):
        torch_graph(Counts(), {"x": torch.ones(2, 3)}, ("a",), {"x": {0: "rows"}})


def test_a_forward_pass_that_depends_on_values_is_refused() -> None:
    with pytest.raises(ExportError, match=r"torch cannot export Decides: \w+: Could not guard on data-dependent"):
        torch_graph(Decides(), {"x": torch.ones(2)}, ("a",), {})
