"""Each step of routing as a function of standard operators, alone, against the definition."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import onnxruntime as ort
import pytest

from lime_edge.contract.routing import MODES, Routing
from lime_edge.exporters.operators import routing as steps
from lime_edge.exporters.operators.function_body import Body
from tests import reference

Array = npt.NDArray[Any]
RNG = np.random.default_rng(0)


def run(write: Callable[[Body], ir.Value], **fed: Array) -> Array:
    """The output of a function body that reads the fed inputs."""
    body = Body(list(fed), ir.DataType.FLOAT)
    function = body.function("test", "Step", {"out": write(body)}, [], 21)
    inputs = [
        ir.Value(name=name, type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(a.shape)) for name, a in fed.items()
    ]
    output = ir.Value(name="out", type=ir.TensorType(ir.DataType.FLOAT))
    node = ir.Node("test", "Step", inputs, [], outputs=[output])
    graph = ir.Graph(inputs, [output], nodes=[node], opset_imports={"": 21, "test": 1}, name="one")
    model = ir.to_proto(ir.Model(graph, ir_version=10, functions=[function])).SerializeToString()
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    found: Array = session.run(None, {name: array.astype(np.float32) for name, array in fed.items()})[0]
    return found


@pytest.mark.parametrize("window", [1, 2])
def test_evidence(window: int) -> None:
    routing = Routing(experts=3, gamma=0.3, temperature=0.2, window=window)
    y, d = RNG.standard_normal((2, 1, 4, 2 * 3))  # B = 1, S = 4, two parts of three experts
    found = run(lambda b: steps.evidence(b, routing, 2, b.inputs["y"], b.inputs["d"]), y=y, d=d)
    temperature = 0.2 if window == 1 else 1.0  # with a window, the mean comes first
    for token, part in np.ndindex(4, 2):
        own = slice(3 * part, 3 * part + 3)
        expected = reference.evidence(y[0, token, own], d[0, token, own], routing) / temperature
        np.testing.assert_allclose(found[0, token, part], expected, rtol=0, atol=1e-5)


def test_evidence_of_zeros_is_zero() -> None:
    zeros = np.zeros((1, 1, 2))
    routing = Routing(experts=2)
    assert not run(lambda b: steps.evidence(b, routing, 1, b.inputs["y"], b.inputs["d"]), y=zeros, d=zeros).any()


def test_a_scale_that_fp16_can_represent() -> None:
    assert steps.smallest_scale(ir.DataType.FLOAT16) == np.finfo(np.float16).tiny
    assert steps.smallest_scale(ir.DataType.FLOAT) == 1e-6


@pytest.mark.parametrize("keep", [1, 2, 5])
@pytest.mark.parametrize("mode", MODES)
def test_selection(mode: Any, keep: int) -> None:
    routing = Routing(experts=5, mode=mode, top_k=keep, temperature=1.0, theta=0.6, softness=0.3)
    logits = RNG.standard_normal((1, 6, 1, 5))
    found = run(lambda b: steps.select(b, routing, b.inputs["logits"]), logits=logits)
    expected = [reference.select(row, routing) for row in logits[0, :, 0]]
    np.testing.assert_allclose(found[0, :, 0], expected, rtol=0, atol=1e-5)
