"""The operator's body of standard operators, alone in a small graph, against the definition."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest

from lime_edge.contract import ALIGNMENT, Kind, Module, ModuleTable, Routing
from lime_edge.exporters.function import DOMAIN, Operator
from tests import reference

Array = npt.NDArray[Any]

ALL: tuple[Kind, ...] = ("expert", "gain", "shift", "rank")
TOLERANCE = 1e-5  # of the largest output; fp32 against float64
MARGIN = 1e-5  # tokens whose selection hangs on less than this are not compared


@dataclass
class Case:
    """One projection of one or three modules with random weights, and a bank of random skills."""

    routing: Routing
    kinds: tuple[Kind, ...] = ALL[:3]
    inputs: int = 11
    sizes: tuple[int, ...] = (13,)
    ranks: tuple[int, ...] = (3,)
    skills: int = 4
    before: int = 70  # H of a module ahead in the table, so that offsets are not 0
    seed: int = 0
    dtype: ir.DataType = ir.DataType.FLOAT
    table: ModuleTable = field(init=False)

    def __post_init__(self) -> None:
        rng = np.random.default_rng(self.seed)
        own = tuple(Module(f"m{i}", h, r) for i, (h, r) in enumerate(zip(self.sizes, self.ranks, strict=True)))
        ahead = (Module("ahead", self.before, 2),) if self.before else ()
        self.table = ModuleTable((*ahead, *own), self.routing.experts, self.kinds)
        self.own = own
        self.weights = [rng.standard_normal((h, self.inputs)) / 3 for h in self.sizes]
        self.a = [rng.standard_normal((r, self.inputs)) / 3 for r in self.ranks]
        self.b = [rng.standard_normal((h, r)) for h, r in zip(self.sizes, self.ranks, strict=True)]
        self.scales = [0.5 + i for i in range(len(own))]
        self.vectors = [self._skill(rng, skill) for skill in range(self.skills)]
        self.bank = np.stack([self.table.pack(v) for v in self.vectors])
        self.bank[0] = 0

    def _skill(self, rng: np.random.Generator, skill: int) -> dict[str, Array]:
        e = self.routing.experts
        shapes = {(k, m.name): m.shape(k, e) for m in self.own for k in self.kinds}
        return {f"{k}.{n}": rng.standard_normal(s).astype(np.float32) for (k, n), s in shapes.items()}

    def session(self) -> ort.InferenceSession:
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 4
        model = ir.to_proto(self.model())
        onnx.checker.check_model(model, full_check=True)
        return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])

    def operator(self) -> Operator:
        width = len([kind for kind in self.kinds if kind != "rank"]) * self.routing.experts
        aligned = len(self.own) == 1 and "rank" not in self.kinds and width * self.sizes[0] % ALIGNMENT == 0
        return Operator(len(self.own), self.routing, self.kinds, self.table.row_size, dtype=self.dtype, aligned=aligned)

    def model(self) -> ir.Model:
        """A graph of one node, y an input."""
        operator = self.operator()
        total, window = sum(self.sizes), self.routing.window
        columns = len(self.table.modules) * self.routing.experts
        shapes: dict[str, list[Any]] = {
            "x": ["B", "S", self.inputs],
            "y": ["B", "S", total],
            "bank": ["N", self.table.row_size],
            "skill_ids": ["G", "T"],
            "past_evidence": ["Z", window - 1, columns + 1],
        }
        shared = {"A": np.concatenate([a.T for a in self.a], axis=1)}
        shared |= {f"B{i + 1}": s * b.T for i, (s, b) in enumerate(zip(self.scales, self.b, strict=True))}
        values: dict[str, ir.Value] = {}
        for name in operator.inputs:
            kind = ir.DataType.INT64 if name == "skill_ids" else self.dtype
            values[name] = ir.Value(name=name, type=ir.TensorType(kind))
            if name in shared:
                values[name].const_value = ir.tensor(shared[name].astype(self.dtype.numpy()), name=name)
            else:
                values[name].shape = ir.Shape(shapes[name])
        outputs = [ir.Value(name="out", type=ir.TensorType(self.dtype), shape=ir.Shape(shapes["y"]))]
        if window > 1:
            width = len(self.own) * self.routing.experts
            shape = ir.Shape(["B", "S", width])
            outputs.append(ir.Value(name="evidence", type=ir.TensorType(self.dtype), shape=shape))
        node = operator.node(
            list(values.values()),
            outputs,
            operator.attributes(
                self.sizes,
                self.ranks,
                self.table.offsets[self.kinds[0], "m0"],
                (len(self.table.modules) - len(self.own)) * self.routing.experts,
            ),
            "node",
        )
        graph = ir.Graph(
            [value for name, value in values.items() if name not in shared],
            outputs,
            nodes=[node],
            initializers=[values[name] for name in shared],
            opset_imports={"": operator.opset, DOMAIN: 1},
            name="one",
        )
        return ir.Model(graph, ir_version=10, functions=[operator.function()])

    def data(self, rows: int, tokens: int, seed: int = 0) -> tuple[Array, Array]:
        """x [B, S, D] and y [B, S, H] in float64."""
        rng = np.random.default_rng(1000 + self.seed + seed)
        x = rng.standard_normal((rows, tokens, self.inputs))
        return x, np.concatenate([x @ w.T for w in self.weights], axis=2)

    def run(self, session: ort.InferenceSession, x: Array, y: Array, ids: Array, past: Array | None = None) -> Any:
        real = self.dtype.numpy()
        feed = {"x": x.astype(real), "y": y.astype(real), "bank": self.bank.astype(real), "skill_ids": ids}
        if self.routing.window > 1:
            feed["past_evidence"] = self.no_past() if past is None else past
        return session.run(None, feed)

    def no_past(self, rows: int = 1) -> Array:
        columns = len(self.table.modules) * self.routing.experts
        return np.zeros((rows, self.routing.window - 1, columns + 1), self.dtype.numpy())

    def expected(self, x: Array, ids: Array) -> tuple[Array, Array]:
        """Output [B, S, H] by the definition, and which tokens are clear of every selection limit [B, S]."""
        out, clear = [], np.ones(x.shape[:2], bool)
        every = np.broadcast_to(ids, x.shape[:2])
        for i, module in enumerate(self.own):
            rows = []
            for b in range(len(x)):
                # a skill per token: every skill over the whole row, then each token takes its own
                done = [self._module(i, module.name, x[b], skill) for skill in range(self.skills)]
                rows.append(np.stack([done[every[b, t]][0][t] for t in range(x.shape[1])]))
                clear[b] &= [clear_of_limits(row, self.routing) for row in self._means(done[0][1])]
            out.append(np.stack(rows))
        return np.concatenate(out, axis=2), clear

    def _module(self, i: int, name: str, x: Array, skill: int) -> tuple[Array, Array]:
        vectors: dict[str, Array] = {}
        for kind in self.kinds:
            start, shape = self.table.offsets[kind, name], self.own[i].shape(kind, self.routing.experts)
            vectors[kind] = self.bank[skill, start : start + shape[0] * shape[1]].reshape(shape).astype(np.float64)
        return reference.lime_linear(
            x, self.weights[i], None, self.a[i], self.b[i], self.scales[i], vectors, self.routing
        )

    def _means(self, logits: Array) -> Array:
        return reference.window_mean(logits, np.zeros((0, self.routing.experts)), self.routing.window)


def clear_of_limits(logits: Array, routing: Routing) -> bool:
    """Whether every expert is kept or dropped by more than MARGIN: closer, rounding may decide."""
    if routing.mode in ("soft", "auto_soft"):
        return True  # continuous
    prob = np.sort(reference.softmax(logits / routing.temperature))
    gaps = [prob[-routing.keep] - prob[-routing.keep - 1]] if routing.keep < routing.experts else []
    if routing.mode == "auto":
        gaps += [abs(p - routing.theta * prob[-1]) for p in prob[:-1]]
    return min(gaps, default=1.0) > MARGIN


def deviation(case: Case, ids: str = "rows", rows: int = 2, tokens: int = 5) -> float:
    """Largest error against the definition, relative to the largest output."""
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
    packed = (experts + window + gated) % 2 == 1  # one part or three, by turns
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
    x = np.zeros((1, 2, case.inputs))  # no evidence at all: every expert is as likely
    out = case.run(case.session(), x, np.zeros((1, 2, 6)), np.array([[1]]))[0]
    every = case.vectors[1]["shift.m0"].mean(0)
    assert np.abs(out - every).max() < TOLERANCE


@pytest.mark.parametrize("window", [2, 4])
def test_steps_continue_a_prefill(window: int) -> None:
    case = Case(Routing(experts=4, window=window, mode="soft"), ALL, sizes=(9, 8), ranks=(2, 3))
    session, (x, y), ids = case.session(), case.data(2, 9), np.array([[1], [3]])
    whole = case.run(session, x, y, ids)[0]
    past, pieces, own = case.no_past(2), [], case.routing.experts  # one module lies ahead
    for start, end in ((0, 3), (3, 4), (4, 5), (5, 8), (8, 9)):
        out, new = case.run(session, x[:, start:end], y[:, start:end], ids, past)
        rows = np.zeros((2, end - start, past.shape[2]), np.float32)
        rows[:, :, own:-1], rows[:, :, -1] = new, 1
        past = np.concatenate([past, rows], axis=1)[:, -(window - 1) :]
        pieces.append(out)
    assert np.abs(np.concatenate(pieces, axis=1) - whole).max() < TOLERANCE * np.abs(whole).max()
    alone = case.run(session, x[:, 3:4], y[:, 3:4], ids)[0]
    assert np.abs(alone - whole[:, 3:4]).max() > 1e-3  # the window does matter


@pytest.mark.parametrize("kinds", [ALL, ALL[:3], ALL[2:3]], ids="+".join)
@pytest.mark.parametrize("experts", [1, 4])
def test_a_row_of_zeros_is_the_base_bit_for_bit(experts: int, kinds: tuple[Kind, ...]) -> None:
    case = Case(Routing(experts=experts), kinds, sizes=(13, 5), ranks=(2, 2))
    x, y = case.data(3, 4)
    out = case.run(case.session(), x, y, np.array([[0], [2], [0]]))[0]
    assert out[0::2].tobytes() == y[0::2].astype(np.float32).tobytes()
    assert (out[1] != y[1].astype(np.float32)).all()


@pytest.mark.parametrize("bad", [4, -1, -4, 2**31, -(2**31), 2**32, 2**62, -(2**63)])
def test_a_bad_skill_id_is_an_error(bad: int) -> None:
    case = Case(Routing(experts=2))
    x, y = case.data(2, 3)
    with pytest.raises(ort.capi.onnxruntime_pybind11_state.InvalidArgument, match="out of data bounds"):
        case.run(case.session(), x, y, np.array([[1], [bad]]))


def test_skill_ids_must_fit_the_rows() -> None:
    case = Case(Routing(experts=2))
    x, y = case.data(4, 3)
    with pytest.raises(ort.capi.onnxruntime_pybind11_state.Fail):
        case.run(case.session(), x, y, np.array([[1], [2]]))


def test_only_the_rows_in_use_are_read() -> None:
    """The bank goes through a reshape, which is a view, into one gather of as many units as the block has."""
    case = Case(Routing(experts=2), before=700)
    (function,) = case.model().functions.values()
    bank = next(value for value in function.inputs if value.name == "bank")
    ((view, _),) = bank.uses()
    ((gather, index),) = view.outputs[0].uses()
    assert (view.op_type, gather.op_type, index) == ("Reshape", "Gather", 0)


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
        "kinds": ALL,
    }
