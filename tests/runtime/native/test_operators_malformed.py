"""Malformed graphs and inputs: the native operator refuses them or runs, and never accesses memory out of bounds.

Sanitizers detect such accesses (`python -m tests.tools.sanitize`). Without one, these tests check that the process
survives and that a valid graph still gives the same bits. They run without torch.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lime_edge.contract.routing import Routing
from tests.runtime.native.test_operators_parity import library
from tests.support.operator_case import ALL, Array, Case

Feed = dict[str, Array]
Draw = Callable[[st.SearchStrategy[Any]], Any]
EXAMPLES = int(os.environ.get("LIME_EDGE_OPERATORS_EXAMPLES", "300"))
WHOLE = [-(2**63), -(2**31), -1, 0, 1, 2, 3, 16, 17, 63, 64, 65, 4096, 4097, 2**24, 2**31, 2**40, 2**62, 2**63 - 1]
REAL = [float("nan"), float("inf"), -float("inf"), 0.0, -0.0, -1.0, 1e-45, 1e30]
WORDS = ["", ",", "rank", "shift", "expert,gain,shift,rank", "rank,expert", "expert,", "auto", "x" * 5000]


@st.composite
def dimensions(draw: Any, like: tuple[int, ...]) -> tuple[int, ...]:
    """A shape similar to another one, or a random shape."""
    if draw(st.booleans()):
        return tuple(draw(st.lists(st.integers(0, 5), max_size=9)))
    return tuple(max(0, size + draw(st.integers(-1, 1)) * draw(st.sampled_from([0, 1, size]))) for size in like)


def attribute(draw: Draw, model: ir.Model, feed: Feed) -> None:
    """Remove an attribute or change its value."""
    node = model.graph[0]
    name = draw(st.sampled_from(sorted(node.attributes)))
    found = node.attributes[name]
    if draw(st.integers(0, 9)) == 0:
        del node.attributes[name]
    elif found.type == ir.AttributeType.INT:
        node.attributes[name] = ir.AttrInt64(name, draw(st.sampled_from(WHOLE)))
    elif found.type == ir.AttributeType.FLOAT:
        node.attributes[name] = ir.AttrFloat32(name, draw(st.sampled_from(REAL)))
    elif found.type == ir.AttributeType.STRING:
        node.attributes[name] = ir.AttrString(name, draw(st.sampled_from(WORDS)))
    else:
        node.attributes[name] = ir.AttrInt64s(name, draw(st.lists(st.sampled_from(WHOLE), max_size=6)))


def fed_shape(draw: Draw, model: ir.Model, feed: Feed) -> None:
    """Change the shape of an input."""
    name = draw(st.sampled_from(sorted(feed)))
    feed[name] = np.resize(feed[name], draw(dimensions(feed[name].shape)))


def constant(draw: Draw, model: ir.Model, feed: Feed) -> None:
    """Change the shape of a matrix of the shared adapter, or make it an input instead of a constant."""
    value = model.graph.initializers[draw(st.sampled_from(sorted(model.graph.initializers)))]
    assert value.const_value is not None
    array = value.const_value.numpy()
    if draw(st.booleans()):
        value.const_value = ir.tensor(np.resize(array, draw(dimensions(array.shape))), name=value.name)
        value.shape = None
    elif value not in model.graph.inputs:
        model.graph.inputs.append(value)
        feed[str(value.name)] = array


def missing(draw: Draw, model: ir.Model, feed: Feed) -> None:
    """Disconnect an input of the node, or change the type of a fed array."""
    node = model.graph[0]
    if draw(st.booleans()):
        node.replace_input_with(draw(st.integers(0, len(node.inputs) - 1)), None)
    else:
        name = draw(st.sampled_from(sorted(feed)))
        feed[name] = feed[name].astype(draw(st.sampled_from([np.float16, np.float64, np.int32])))


def numbers(draw: Draw, model: ir.Model, feed: Feed) -> None:
    """Feed extreme skill ids, or extreme numbers in another input."""
    if draw(st.booleans()):
        ids = feed["skill_ids"]
        feed["skill_ids"] = np.array(draw(st.lists(st.sampled_from(WHOLE), min_size=ids.size, max_size=ids.size)))
        feed["skill_ids"] = feed["skill_ids"].astype(np.int64).reshape(ids.shape)
    else:
        name = draw(st.sampled_from([name for name in sorted(feed) if name != "skill_ids"]))
        feed[name] = np.full_like(feed[name], draw(st.sampled_from(REAL)))


@st.composite
def malformed(draw: Any) -> tuple[bytes, Feed]:
    """A graph of one node and its inputs, with one to three faults."""
    routing = Routing(draw(st.sampled_from([1, 2, 4])), window=draw(st.sampled_from([1, 1, 3])))
    kinds, parts = draw(st.sampled_from([ALL, ALL[:1], ALL[:3]])), draw(st.sampled_from([1, 2]))
    half, times = draw(st.booleans()), draw(st.booleans())
    case = Case(routing, kinds, 11, (13, 20)[:parts], (3, 9)[:parts], half=half, times=times)
    model, feed = case.model(), _fed(case)
    faults = st.sampled_from([attribute, fed_shape, constant, missing, numbers])
    with np.errstate(all="ignore"):
        for fault in draw(st.lists(faults, min_size=1, max_size=3)):
            fault(draw, model, feed)
    for value in (*model.graph.inputs, *model.graph.outputs):
        value.shape = None  # with shapes, onnxruntime would refuse most graphs before the operator runs
    return ir.to_proto(model).SerializeToString(), feed


def _fed(case: Case) -> Feed:
    class Feeds:
        def run(self, _: None, feed: Feed) -> Feed:
            return dict(feed)

    fed: Feed = case.run(Feeds(), *case.data(2, 5), np.array([[1], [2]]))
    return fed


def session(model: bytes) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    options.register_custom_ops_library(str(library()))
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


@cache
def valid() -> tuple[ort.InferenceSession, Feed, bytes]:
    """A session of a valid graph, its inputs and its first output."""
    case = Case(Routing(experts=4), ALL)
    made, feed = session(ir.to_proto(case.model()).SerializeToString()), _fed(case)
    return made, feed, made.run(None, feed)[0].tobytes()


REACHED: list[str] = []  # malformed graphs that reached the operator: "ran" or "refused"


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(malformed())
def test_what_contradicts_itself_harms_nothing(drawn: tuple[bytes, Feed]) -> None:
    model, feed = drawn
    before = valid()
    with contextlib.suppress(Exception):  # onnxruntime's exceptions have no other common base class
        try:
            session(model).run(None, feed)
            REACHED.append("ran")
        except Exception as error:
            if "LimeLinear: " in str(error):
                REACHED.append("refused")
            raise
    assert before[0].run(None, before[1])[0].tobytes() == before[2]


def test_the_operator_saw_most_of_it() -> None:
    assert REACHED.count("refused") > EXAMPLES / 5
    assert len(REACHED) > EXAMPLES / 2
