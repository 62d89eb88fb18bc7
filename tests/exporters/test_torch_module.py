"""Exports of any torch module: what is refused and why; tests/runtime/test_module.py runs what was exported."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from lime_edge.contract.model import read_contract
from lime_edge.contract.routing import Routing
from lime_edge.errors import ExportError
from lime_edge.exporters import AdaptedModule, AdapterWeights
from lime_edge.exporters.torch_module import Example, export_module
from tests.support.module_case import TARGETS, WIDTH, Denoiser, made


class Branch(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.used, self.unused = torch.nn.Linear(4, 4), torch.nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.used(x)
        return out


def adapter(*names: str, width: int = 4) -> AdapterWeights:
    modules = [AdaptedModule(n, np.ones((2, width), np.float32), np.ones((width, 2), np.float32), 1.0) for n in names]
    return AdapterWeights(tuple(modules), Routing(experts=1), ("gain", "shift"))


def example(module: torch.nn.Module, **others: object) -> Example:
    given = {"x": torch.ones(2, 3, 4)}
    with torch.no_grad():
        base = {"y": module(**given).numpy()}
    made = Example(given, {"x": {0: "batch"}}, base, {}, base)
    return replace(made, **others)  # type: ignore[arg-type]


def test_the_directory_is_complete() -> None:
    directory = made()[0]
    contract = read_contract(directory)
    assert sorted(path.name for path in directory.iterdir()) == ["lime.json", "model.onnx", "model.onnx.data"]
    assert {module.name for module in contract.table.modules} == set(TARGETS)
    assert (contract.backbone_name, contract.precision, contract.sees) == ("Denoiser", "fp32", False)
    assert dict(contract.sizes) == {name: (directory / name).stat().st_size for name, _ in contract.files}
    assert {module.out_features for module in contract.table.modules} == {WIDTH, 4}


def test_every_fault_is_named_at_once(tmp_path: Path) -> None:
    module = Branch()
    given = example(module, dynamic={"x": {0: "batch", 7: "depth"}, "z": {0: "batch"}})
    (tmp_path / "mine").touch()
    with pytest.raises(ExportError) as caught:
        export_module(module, adapter("used", "missing"), given, tmp_path)
    for fault in (
        "missing: the model has no such module",
        "the module is in training mode; call eval() first",
        "x is [2, 3, 4], its axis 7 varies; expected at least 2 in the example",
        "dynamic names z; the inputs are x",
        "is not empty; choose another directory",
    ):
        assert fault in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_a_module_that_is_not_used_is_refused(tmp_path: Path) -> None:
    module = Branch().eval()
    with pytest.raises(ExportError, match="unused: the forward pass does not use it"):
        export_module(module, adapter("used", "unused"), example(module), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_graph_that_differs_from_torch_is_refused(tmp_path: Path) -> None:
    module = Branch().eval()
    right = example(module)
    wrong = {"y": right.base["y"] * 1.01}
    for given, fault in (
        (replace(right, base=wrong), "y without a skill differs by 0.0099"),
        (replace(right, vectors={"gain.used": np.ones((1, 4), np.float32)}), "y with a skill differs by"),
    ):
        with pytest.raises(ExportError, match="the graph of Branch is not what torch computes") as caught:
            export_module(module, adapter("used"), given, tmp_path / "out")
        assert fault in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_the_module_and_its_weights_are_the_same_afterwards() -> None:
    model = made()[2].base_model.model
    assert isinstance(model, Denoiser)
    assert not any(module._forward_hooks for name, module in model.named_modules() if name in TARGETS)
