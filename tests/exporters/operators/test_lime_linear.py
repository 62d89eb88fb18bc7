"""The operator as a function of standard operators, alone in a small graph, against the definition."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest

from lime_edge.contract.routing import Routing
from lime_edge.contract.vector_kinds import Kind
from tests.support.operator_case import ALL, BAD_IDS, TOLERANCE, Case


def deviation(case: Case, ids: str = "rows", rows: int = 2, tokens: int = 5) -> float:
    """The largest error against the definition, relative to the largest output."""
    x, y = case.data(rows, tokens)
    shape = {"rows": (rows, 1), "tokens": (rows, tokens), "one": (1, 1), "line": (1, tokens)}[ids]
    skill_ids = np.random.default_rng(case.seed).integers(0, case.skills, shape)
    out = case.run(case.session(), x, y, skill_ids)[0].astype(np.float64)
    expected, clear = case.expected(x, skill_ids)
    assert clear.mean() > 0.5, "nearly everything was excluded"
    return float(np.abs(out - expected)[clear].max() / np.abs(expected).max())


@pytest.mark.parametrize("gated", [False, True], ids=["plain", "gated"])
@pytest.mark.parametrize("window", [1, 2, 3, 4])
@pytest.mark.parametrize("experts", [1, 2, 4, 8])
@pytest.mark.parametrize("mode", ["hard", "soft", "auto", "auto_soft"])
def test_equals_the_definition(mode: Any, experts: int, window: int, gated: bool) -> None:
    packed = (experts + window + gated) % 2 == 1  # alternates between one part and three
    case = Case(
        Routing(experts=experts, mode=mode, window=window, top_k=1 + window % 2),
        ALL if gated else ALL[:3],
        sizes=(17, 9, 8) if packed else (21,),
        ranks=(3, 1, 2) if packed else (5,),
        seed=experts * 10 + window,
    )
    assert deviation(case, ("rows", "tokens", "one", "line")[(experts + window) % 4]) < TOLERANCE


@pytest.mark.parametrize("seed", range(24))
def test_equals_the_definition_at_random(seed: int) -> None:
    rng = np.random.default_rng(seed)
    experts, parts = int(rng.integers(1, 9)), int(rng.choice([1, 1, 2, 3]))
    kinds = tuple(kind for kind in ALL if rng.random() < 0.6)
    routing = Routing(
        experts,
        gamma=float(rng.choice([0, 0.3, 0.7, 1])),
        temperature=float(rng.uniform(0.2, 2)),
        mode=rng.choice(["hard", "soft", "auto", "auto_soft"]),
        top_k=int(rng.integers(1, 5)),
        theta=float(rng.choice([0, 0.3, 0.7, 1])),
        softness=float(rng.uniform(0.2, 1)),
        window=int(rng.integers(1, 4)),
    )
    sizes = tuple(int(n) for n in rng.integers(experts, 140, parts))
    ranks = tuple(int(n) for n in rng.integers(1, 9, parts))
    case = Case(routing, kinds if set(kinds) - {"rank"} else ALL[:1], 7, sizes, ranks, before=seed % 3, seed=seed)
    assert deviation(case, rng.choice(["rows", "tokens", "one"]), rows=3, tokens=4) < TOLERANCE


@pytest.mark.parametrize("kinds", [ALL[:1], ALL[1:3], ALL[2:3], (ALL[0], ALL[3])], ids="+".join)
def test_fields_that_fill_their_block(kinds: tuple[Kind, ...]) -> None:
    case = Case(Routing(experts=2), kinds, sizes=(64,), ranks=(4,))
    operator = case.operator()
    assert operator.aligned == ("rank" not in kinds)
    assert len(operator.function()) <= len(replace(operator, aligned=False).function())
    assert deviation(case, "tokens") < TOLERANCE


@pytest.mark.parametrize("mode", ["hard", "auto"])
def test_ties_are_all_kept(mode: Any) -> None:
    case = Case(Routing(experts=4, mode=mode, top_k=1), sizes=(6,))
    x = np.zeros((1, 2, case.inputs))  # without evidence all experts are equally likely
    out = case.run(case.session(), x, np.zeros((1, 2, 6)), np.array([[1]]))[0]
    every = case.vectors[1]["shift.m0"].mean(0)
    assert np.abs(out - every).max() < TOLERANCE


@pytest.mark.parametrize("window", [2, 4])
def test_steps_continue_a_prefill(window: int) -> None:
    case = Case(Routing(experts=4, window=window, mode="soft"), ALL, sizes=(9, 8), ranks=(2, 3))
    session, (x, y), ids = case.session(), case.data(2, 9), np.array([[1], [3]])
    whole = case.run(session, x, y, ids)[0]
    past, pieces, own = case.no_past(2), [], case.routing.experts  # one module precedes in the table
    for start, end in ((0, 3), (3, 4), (4, 5), (5, 8), (8, 9)):
        out, new = case.run(session, x[:, start:end], y[:, start:end], ids, past)
        rows = np.zeros((2, end - start, past.shape[2]), np.float32)
        rows[:, :, own:-1], rows[:, :, -1] = new, 1
        past = np.concatenate([past, rows], axis=1)[:, -(window - 1) :]
        pieces.append(out)
    assert np.abs(np.concatenate(pieces, axis=1) - whole).max() < TOLERANCE * np.abs(whole).max()
    alone = case.run(session, x[:, 3:4], y[:, 3:4], ids)[0]
    assert np.abs(alone - whole[:, 3:4]).max() > 1e-3  # the window changes the output


@pytest.mark.parametrize("kinds", [ALL, ALL[:3], ALL[2:3]], ids="+".join)
@pytest.mark.parametrize("experts", [1, 4])
def test_a_row_of_zeros_is_the_base_bit_for_bit(experts: int, kinds: tuple[Kind, ...]) -> None:
    case = Case(Routing(experts=experts), kinds, sizes=(13, 5), ranks=(2, 2))
    x, y = case.data(3, 4)
    out = case.run(case.session(), x, y, np.array([[0], [2], [0]]))[0]
    assert out[0::2].tobytes() == y[0::2].astype(np.float32).tobytes()
    assert (out[1] != y[1].astype(np.float32)).all()


@pytest.mark.parametrize(("experts", "bad"), [(2, bad) for bad in BAD_IDS] + [(1, -1), (1, 4)])
def test_a_bad_skill_id_is_an_error(experts: int, bad: int) -> None:
    case = Case(Routing(experts=experts))
    x, y = case.data(2, 3)
    with pytest.raises(ort.capi.onnxruntime_pybind11_state.InvalidArgument, match="out of data bounds"):
        case.run(case.session(), x, y, np.array([[1], [bad]]))


def test_skill_ids_must_fit_the_rows() -> None:
    case = Case(Routing(experts=2))
    x, y = case.data(4, 3)
    with pytest.raises(ort.capi.onnxruntime_pybind11_state.Fail):
        case.run(case.session(), x, y, np.array([[1], [2]]))


def test_only_the_rows_in_use_are_read() -> None:
    """The bank is reshaped, which is a view, and one gather reads the units of the block."""
    case = Case(Routing(experts=2), before=700)
    (function,) = case.model().functions.values()
    bank = next(value for value in function.inputs if value.name == "bank")
    ((view, _),) = bank.uses()
    ((gather, index),) = view.outputs[0].uses()
    assert (view.op_type, gather.op_type, index) == ("Reshape", "Gather", 0)


def test_what_is_stored_in_half_precision_is_read_as_it_is() -> None:
    """Bank and shared adapter are rounded once, when stored; the definition uses the rounded values."""
    case = Case(Routing(experts=3), ALL, sizes=(70, 33), ranks=(2, 3), half=True)
    assert deviation(case, "tokens") < TOLERANCE


def test_half_precision() -> None:
    case = Case(Routing(experts=4, mode="soft"), ALL, sizes=(9, 8), ranks=(2, 3), dtype=ir.DataType.FLOAT16)
    assert deviation(case, "tokens") < 4e-3  # eps of fp16 is 1e-3
    tiny = np.full((1, 1, case.inputs), 1e-7)
    out = case.run(case.session(), tiny, np.full((1, 1, 17), 1e-7), np.array([[1]]))[0]
    assert np.isfinite(out).all()


def test_a_node_says_all_that_a_kernel_needs() -> None:
    case = Case(Routing(experts=2, window=3), ALL, sizes=(9, 8), ranks=(2, 3))
    (node,) = case.model().graph
    values = {name: attribute.value for name, attribute in node.attributes.items()}
    assert (node.domain, node.op_type) == ("ai.lime", "LimeLinear2")
    assert values == {
        "experts": 2,
        "gamma": pytest.approx(0.7),
        "temperature": 0.5,
        "mode": "auto",
        "keep": 2,
        "theta": 0.5,
        "softness": 0.5,
        "window": 3,
        "parts": (9, 8),
        "ranks": (2, 3),
        "bank_offset": case.table.offsets["expert", "m0"],
        "evidence_offset": 2,
        "kinds": "expert,gain,shift,rank",
    }
