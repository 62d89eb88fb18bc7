"""The native operator against the function of the same name and against the definition, over all its parameters.

Runs without torch, so that it can run under sanitizers. The environment variable LIME_EDGE_OPERATORS_TEST names a
library to test instead of the installed one.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lime_edge.contract.routing import MODES, Routing
from lime_edge.contract.vector_kinds import Kind
from lime_edge.runtime.native import operators
from tests import reference
from tests.support.operator_case import ALL, BAD_IDS, TOLERANCE, Array, Case
from tests.support.paths import ROOT

InvalidArgument = ort.capi.onnxruntime_pybind11_state.InvalidArgument
EXAMPLES = int(os.environ.get("LIME_EDGE_OPERATORS_EXAMPLES", "2000"))  # fewer under tests/tools/sanitize.py


@cache
def library() -> Path:
    named = os.environ.get("LIME_EDGE_OPERATORS_TEST")
    found = operators.describe(Path(named)) if named else operators.installed()
    assert found.library is not None
    return found.library


@st.composite
def cases(draw: Any) -> tuple[Case, int, int, str]:
    """A node, the numbers of rows and tokens, and the shape of the skill ids."""
    experts = draw(st.sampled_from([1, 1, 2, 2, 3, 4, 4, 5, 8, 17]))
    parts = draw(st.sampled_from([1, 1, 2, 3, 4]))
    rows = draw(st.integers(1, 6))
    tokens = draw(st.one_of(st.integers(1, 6), st.integers(1, 6), st.integers(1, 300 // (rows * parts))))
    chosen: set[Kind] = set(draw(st.sets(st.sampled_from(ALL[:3]), min_size=1)))
    kinds = tuple(kind for kind in ALL if kind in chosen or (kind == "rank" and draw(st.booleans())))
    routing = Routing(
        experts,
        gamma=draw(st.sampled_from([0, 0.3, 0.7, 1])),
        temperature=draw(st.sampled_from([0.2, 0.5, 1, 2])),
        mode=draw(st.sampled_from(MODES)),
        top_k=draw(st.integers(1, 4)),
        theta=draw(st.sampled_from([0, 0.3, 0.5, 1])),
        softness=draw(st.sampled_from([0.2, 0.5, 1])),
        window=draw(st.sampled_from([1, 1, 1, 2, 3, 4])),
    )
    sizes = draw(st.lists(st.integers(experts, 150), min_size=parts, max_size=parts))
    ranks = draw(st.lists(st.integers(1, 17), min_size=parts, max_size=parts))
    case = Case(
        routing,
        kinds,
        inputs=draw(st.integers(1, 80)),
        sizes=tuple(sizes),
        ranks=tuple(ranks),
        skills=3,
        before=draw(st.sampled_from([0, 70])),
        seed=draw(st.integers(0, 2**16)),
        half=draw(st.booleans()),
        gain_only=kinds == ("gain",) and draw(st.booleans()),
        times=draw(st.booleans()),
    )
    return case, rows, tokens, draw(st.sampled_from(["rows", "tokens", "one", "line"]))


def skill_ids(case: Case, how: str, rows: int, tokens: int) -> Array:
    shape = {"rows": (rows, 1), "tokens": (rows, tokens), "one": (1, 1), "line": (1, tokens)}[how]
    return np.random.default_rng(case.seed).integers(0, case.skills, shape)


@settings(max_examples=EXAMPLES, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(cases())
def test_equals_the_function_and_the_definition(drawn: tuple[Case, int, int, str]) -> None:
    case, rows, tokens, how = drawn
    x, y = case.data(rows, tokens)
    ids = skill_ids(case, how, rows, tokens)
    native = case.run(case.session(library()), x, y, ids)
    function = case.run(case.session(), x, y, ids)
    expected, clear = case.expected(x, ids)
    size = np.abs(expected).max()
    assert np.abs(native[0] - expected)[clear].max(initial=0) <= TOLERANCE * size
    assert np.abs(native[0] - function[0])[clear].max(initial=0) <= TOLERANCE * size
    base = np.broadcast_to(ids, (rows, tokens)) == 0
    assert native[0][base].tobytes() == function[0][base].tobytes() == case.base(y)[base].tobytes()
    if case.routing.window > 1:
        assert np.abs(native[1] - function[1]).max() <= TOLERANCE


@pytest.mark.parametrize("parts", [1, 2, 3, 4])
@pytest.mark.parametrize("gain_only", [False, True])
@pytest.mark.parametrize("times", [False, True])
def test_the_library_has_every_operator(parts: int, gain_only: bool, times: bool) -> None:
    case = Case(Routing(), ("gain",), sizes=(8,) * parts, ranks=(2,) * parts, gain_only=gain_only, times=times)
    case.session(library(), function=False)
    with pytest.raises(ort.capi.onnxruntime_pybind11_state.Fail, match="is not a registered function/op"):
        case.session(function=False)


def test_cases_are_mostly_clear_of_the_limits() -> None:
    """The comparison excludes tokens whose selection rounding may decide; they are few."""
    kept = []
    for seed in range(20):
        case = Case(Routing(experts=4), sizes=(40, 9), ranks=(3, 2), seed=seed)
        kept.append(case.expected(case.data(2, 40)[0], np.array([[1]]))[1].mean())
    assert np.mean(kept) > 0.99


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("window", [1, 3])
@pytest.mark.parametrize("times", [False, True])
def test_half_precision_activations(mode: Any, window: int, times: bool) -> None:
    routing, half = Routing(experts=4, mode=mode, window=window), ir.DataType.FLOAT16
    case = Case(routing, ALL, 70, (33, 18), (2, 3), dtype=half, seed=window, times=times)
    x, y = case.data(2, 7)
    ids = skill_ids(case, "tokens", 2, 7)
    out = case.run(case.session(library()), x, y, ids)[0]
    assert out.dtype == np.float16
    expected, _ = case.expected(x, ids)
    if mode.endswith("soft"):  # soft selection is continuous, so rounding cannot change it much
        assert np.abs(out - expected).max() < 4e-3 * np.abs(expected).max()
    base = ids == 0
    assert out[base].tobytes() == case.base(y)[base].tobytes()
    tiny = case.run(case.session(library()), np.full_like(x, 1e-7), np.full_like(y, 1e-7), ids)[0]
    assert np.isfinite(tiny).all()


def test_half_precision_numbers_of_every_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every finite fp16 number, subnormals and zeros included, as a shift, is the exact output."""
    every = np.arange(0x7C00, dtype=np.uint16).view(np.float16)
    values = np.concatenate([every, -every])
    case = Case(Routing(experts=1), ("shift",), 4, (len(values),), (1,), before=0, skills=2, half=True)
    case.bank[1, : len(values)] = values
    out = case.run(case.session(library()), np.zeros((1, 1, 4)), np.zeros((1, 1, len(values))), np.array([[1]]))[0]
    assert np.array_equal(out[0, 0], values.astype(np.float32))


def test_windows_carry_their_state() -> None:
    """Calls token by token, with the evidence of earlier tokens fed back, equal one call."""
    case = Case(Routing(experts=4, window=3, mode="auto_soft"), ALL, 30, (20, 9), (3, 2), seed=5)
    x, y = case.data(3, 8)
    ids, session = np.array([[1], [2], [0]]), case.session(library())
    whole, evidence = case.run(session, x, y, ids)
    columns = len(case.table.modules) * case.routing.experts
    past = case.no_past(3)
    for t in range(8):
        out, now = case.run(session, x[:, t : t + 1], y[:, t : t + 1], ids, past)
        assert np.abs(out - whole[:, t : t + 1]).max() < TOLERANCE * np.abs(whole).max()
        assert np.abs(now - evidence[:, t : t + 1]).max() < TOLERANCE
        row = np.zeros((3, 1, columns + 1), np.float32)
        row[..., columns - now.shape[2] : columns], row[..., -1] = now, 1
        past = np.concatenate([past[:, 1:], row], axis=1)


@pytest.mark.parametrize(("experts", "bad"), [(2, bad) for bad in BAD_IDS] + [(1, -1), (1, 4)])
def test_a_bad_skill_id_is_an_error(experts: int, bad: int) -> None:
    case = Case(Routing(experts=experts))
    x, y = case.data(2, 3)
    session = case.session(library())
    with pytest.raises(InvalidArgument, match=f"skill id {bad} is not in the bank of 4 rows"):
        case.run(session, x, y, np.array([[1], [bad]]))
    assert np.isfinite(case.run(session, x, y, np.array([[1], [2]]))[0]).all()  # the session still works


@pytest.mark.parametrize("shape", [(2, 1), (3, 1), (1, 2), (4, 2), (8, 1), (0, 1), (4,)])
def test_skill_ids_must_fit_the_tokens(shape: tuple[int, ...]) -> None:
    case = Case(Routing(experts=2))
    x, y = case.data(4, 3)
    with pytest.raises((InvalidArgument, ValueError), match=r"skill_ids|rank"):
        case.run(case.session(library()), x, y, np.ones(shape, np.int64))


def test_inputs_must_fit_each_other() -> None:
    case = Case(Routing(experts=2, window=2), ALL)
    x, y = case.data(2, 3)
    ids, session = np.array([[1]]), case.session(library())
    wrong: list[tuple[Array, Array, Array | None]] = [
        (x[:1], y, None),
        (x[:, :2], y, None),
        (x, y, np.zeros((3, 1, case.no_past().shape[2]), np.float32)),
    ]
    for given_x, given_y, past in wrong:
        with pytest.raises(InvalidArgument):
            case.run(session, given_x, given_y, ids, past)


@pytest.mark.parametrize("shape", [(1, 3, 13), (2, 2, 13), (2, 3, 12), (2, 3, 1), (2, 39), (2, 3, 13, 1)])
def test_a_factor_is_as_large_as_what_it_multiplies(shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case(Routing(experts=2), times=True)
    session = case.session(library())
    monkeypatch.setattr(Case, "factor", lambda _, y: np.ones(shape, np.float32))
    with pytest.raises((InvalidArgument, ValueError), match=r"factor|[Rr]ank"):
        case.run(session, *case.data(2, 3), np.array([[1]]))


def test_no_tokens_are_no_work() -> None:
    case = Case(Routing(experts=2))
    x, y = case.data(2, 3)
    session = case.session(library())
    assert case.run(session, x[:, :0], y[:, :0], np.ones((2, 1), np.int64))[0].shape == (2, 0, 13)
    assert case.run(session, x[:0], y[:0], np.ones((1, 1), np.int64))[0].shape == (0, 3, 13)


def test_the_row_form_of_slicefine_is_this_operator() -> None:
    """The first r rows of W are trained: out[:r] = (W' x)[:r] * mix; the other rows stay (paper, LiME-SliceFine).

    d is the change of these rows, so B selects them; the gain modulates their frozen output.
    """
    rng, r, e = np.random.default_rng(2), 5, 3
    case = Case(Routing(experts=e, gamma=0), ("expert", "gain"), 30, (21,), (r,), skills=2, before=0)
    added, mix = rng.standard_normal((r, 30)), rng.standard_normal((e, r)).astype(np.float32)
    case.a, case.b, case.scales = [added], [np.eye(21, r)], [1.0]
    expert, gain = np.zeros((2, e, 21), np.float32)
    expert[:, :r], gain[:, :r] = mix, mix - 1
    case.put(1, {"expert.m0": expert, "gain.m0": gain})
    x, y = case.data(2, 6)
    out = case.run(case.session(library()), x, y, np.array([[1]]))[0]
    expected = y.copy()
    for b, t in np.ndindex(2, 6):
        w = reference.select(reference.evidence(y[b, t], np.zeros(21), case.routing), case.routing)
        expected[b, t, :r] = (y[b, t, :r] + added @ x[b, t]) * (w @ mix)
    assert np.abs(out - expected).max() < TOLERANCE * np.abs(expected).max()


def test_dora_with_its_magnitudes_folded_is_this_operator() -> None:
    """out = c W x + c s Bm A x * mix with c = m / |W + s Bm A| (paper, LiME-DoRA); c is folded into W and Bm."""
    case = Case(Routing(experts=2), ("expert",), 30, (21,), (4,), skills=2, before=0)
    w, a, b, s = case.weights[0], case.a[0], case.b[0], case.scales[0]
    m = np.random.default_rng(3).uniform(0.5, 2, 21)
    c = m / np.linalg.norm(w + s * b @ a, axis=1)
    x, y = case.data(2, 6)
    p = case.vectors[1]["expert.m0"].astype(np.float64)
    expected = np.empty((2, 6, 21))
    for i, j in np.ndindex(2, 6):
        frozen, d = c * y[i, j], c * (s * b @ (a @ x[i, j]))
        mix = reference.select(reference.evidence(frozen, d, case.routing), case.routing) @ p
        expected[i, j] = frozen + d * mix
    case.b = [c[:, None] * b]
    out = case.run(case.session(library()), x, c * y, np.array([[1]]))[0]
    assert np.abs(out - expected).max() < TOLERANCE * np.abs(expected).max()


def broken(case: Case, **attributes: ir.Attr) -> bytes:
    """A model whose node has other attributes than the case needs."""
    model = case.model()
    (node,) = model.graph
    for attribute in attributes.values():
        node.attributes[attribute.name] = attribute
    proto = ir.to_proto(model)
    data: bytes = proto.SerializeToString()
    return data


@pytest.mark.parametrize(
    ("attribute", "text"),
    [
        (ir.AttrInt64("experts", 0), "experts is 0"),
        (ir.AttrInt64("experts", 65), "experts is 65"),
        (ir.AttrInt64("experts", 14), "fewer outputs than there are experts"),
        (ir.AttrInt64("keep", 5), "keep is 5"),
        (ir.AttrInt64("window", 17), "window is 17"),
        (ir.AttrInt64("bank_offset", -1), "bank_offset is -1"),
        (ir.AttrInt64("evidence_offset", -(2**40)), "evidence_offset is"),
        (ir.AttrString("mode", "best"), "mode is best"),
        (ir.AttrString("kinds", "expert,gains"), "kinds are expert,gains"),
        (ir.AttrString("kinds", ""), "kinds are"),
        (ir.AttrString("kinds", "gain,gain"), "kinds are gain,gain"),
        (ir.AttrFloat32("temperature", 0.0), "temperature is"),
        (ir.AttrFloat32("softness", float("nan")), "softness is"),
        (ir.AttrInt64s("parts", [13, 2]), "parts has 2 entries"),
        (ir.AttrInt64s("parts", [2**40]), "parts holds"),
        (ir.AttrInt64s("parts", [14]), "shared adapter"),
        (ir.AttrInt64s("ranks", [4]), "shared adapter"),
        (ir.AttrInt64s("ranks", [5000]), "ranks holds 5000"),
    ],
    ids=str,
)
def test_attributes_that_contradict_the_node_are_refused(attribute: ir.Attr, text: str) -> None:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.register_custom_ops_library(str(library()))
    with pytest.raises(Exception, match=text):
        ort.InferenceSession(broken(Case(Routing(experts=2)), one=attribute), options)


def test_a_bank_too_narrow_for_the_node_is_refused() -> None:
    case = Case(Routing(experts=2))
    moved = ir.AttrInt64("bank_offset", case.table.segment)
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.register_custom_ops_library(str(library()))
    session = ort.InferenceSession(broken(case, offset=moved), options)
    x, y = case.data(1, 2)
    with pytest.raises(InvalidArgument, match="bank is"):
        case.run(session, x, y, np.array([[1]]))


@pytest.mark.parametrize("threads", [1, 2])
def test_concurrent_callers_do_not_see_each_other(threads: int) -> None:
    """Many threads call one session, which distributes long prompts over its own thread pool."""
    case = Case(Routing(experts=4, window=2), ALL, 40, (64, 16, 16), (4, 2, 2), skills=4, seed=3)
    session = case.session(library(), threads)
    jobs = []
    for seed in range(12):
        x, y = case.data(1 + seed % 3, 1 + 37 * (seed % 4), seed)
        jobs.append((x, y, np.full((1, 1), seed % 4)))
    alone = [case.run(session, *job)[0].tobytes() for job in jobs]
    with ThreadPoolExecutor(6) as pool:
        together = list(pool.map(lambda job: case.run(session, *job)[0].tobytes(), jobs * 4))
    assert together == alone * 4


def test_a_token_is_the_same_in_any_company() -> None:
    """A token's output is the same, bit for bit, alone, in a batch with other skills and in a long prompt."""
    case = Case(Routing(experts=2), ALL, 33, (47, 20), (8, 5), skills=4, seed=9)
    x, y = case.data(5, 40)
    ids = np.random.default_rng(0).integers(0, 4, (5, 40))
    session = case.session(library(), 2)
    whole = case.run(session, x, y, ids)[0]
    for b, t in [(0, 0), (1, 7), (4, 39), (2, 20)]:
        one = case.run(session, x[b : b + 1, t : t + 1], y[b : b + 1, t : t + 1], ids[b : b + 1, t : t + 1])[0]
        assert one[0, 0].tobytes() == whole[b, t].tobytes()


@pytest.mark.parametrize("cpu", ["generic", "avx2", "avx512", "neon"])
def test_every_cpu_path_of_this_machine(cpu: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Runs in a new process, because the library chooses the instruction set when it is loaded.

    If the processor does not support the named set, the choice falls back to another one.
    """
    import subprocess
    import sys

    script = (
        "import sys\n"
        "from tests.runtime.native import test_operators_parity as t\n"
        "from tests.support import operator_case as c\n"
        "from lime_edge.contract.routing import Routing\n"
        "from lime_edge.runtime.native import operators\n"
        "import numpy as np\n"
        "found = operators.describe(t.library()).cpu\n"
        "for seed in range(25):\n"
        "    case = c.Case(Routing(experts=1 + seed % 5, window=1 + seed % 2), c.ALL, 20 + seed, (60 - seed, 9),"
        " (3, 9), half=seed % 3 == 0, seed=seed)\n"
        "    x, y = case.data(2, 5); ids = t.skill_ids(case, 'tokens', 2, 5)\n"
        "    out = case.run(case.session(t.library()), x, y, ids)[0]; expected, clear = case.expected(x, ids)\n"
        "    assert np.abs(out - expected)[clear].max() <= c.TOLERANCE * np.abs(expected).max(), seed\n"
        "print(found)\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "LIME_EDGE_CPU": cpu, "PYTHONPATH": str(ROOT)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stderr
    assert found.stdout.split()[-1] in ("generic", "avx2", "avx512", "neon")
    if operators.describe(library()).cpu != "neon" and cpu == "generic":
        assert found.stdout.split()[-1] == "generic"
