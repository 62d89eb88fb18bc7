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
    level: ort.GraphOptimizationLevel = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
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
        options.graph_optimization_level = self.level
        options.log_severity_level = 4
        model = ir.to_proto(self.model())
        onnx.checker.check_model(model, full_check=True)
        return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])

    def model(self) -> ir.Model:
        """A graph of one node, y an input."""
        operator = Operator(len(self.own), self.routing, self.kinds, self.table.row_size)
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
            kind = ir.DataType.INT64 if name == "skill_ids" else ir.DataType.FLOAT
            values[name] = ir.Value(name=name, type=ir.TensorType(kind))
            if name in shared:
                values[name].const_value = ir.tensor(shared[name].astype(np.float32), name=name)
            else:
                values[name].shape = ir.Shape(shapes[name])
        outputs = [ir.Value(name="out", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(shapes["y"]))]
        if window > 1:
            width = len(self.own) * self.routing.experts
            shape = ir.Shape(["B", "S", width])
            outputs.append(ir.Value(name="evidence", type=ir.TensorType(ir.DataType.FLOAT), shape=shape))
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

    def past(self, rows: int = 1) -> Array:
        columns = len(self.table.modules) * self.routing.experts
        return np.zeros((rows, self.routing.window - 1, columns + 1), np.float32)

    def run(self, session: ort.InferenceSession, x: Array, y: Array, ids: Array, past: Array | None = None) -> Any:
        feed = {"x": x.astype(np.float32), "y": y.astype(np.float32), "bank": self.bank, "skill_ids": ids}
        if self.routing.window > 1:
            feed["past_evidence"] = self.past() if past is None else past
        return session.run(None, feed)

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
        zeros = {k: np.zeros(m) for k, m in ((k, self.own[i].shape(k, self.routing.experts)) for k in self.kinds)}
        vectors = {k: self.vectors[skill][f"{k}.{name}"].astype(np.float64) for k in self.kinds} if skill else zeros
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


def _check(case: Case, ids_shape: str = "rows", rows: int = 2, tokens: int = 5) -> float:
    x, y = case.data(rows, tokens)
    rng = np.random.default_rng(case.seed)
    shape = {"rows": (rows, 1), "tokens": (rows, tokens), "one": (1, 1)}[ids_shape]
    ids = rng.integers(1, case.skills, shape)
    out = case.run(case.session(), x, y, ids)[0]
    expected, clear = case.expected(x, ids)
    assert clear.mean() > 0.5, "nearly everything was excluded"
    return float(np.abs(out - expected)[clear].max() / np.abs(expected).max())


def _routing(mode: Any, experts: int, window: int, **others: Any) -> Routing:
    return Routing(experts=experts, mode=mode, window=window, **others)


@pytest.mark.parametrize("gated", [False, True], ids=["plain", "gated"])
@pytest.mark.parametrize("window", [1, 2, 3, 4])
@pytest.mark.parametrize("experts", [1, 2, 4, 8])
@pytest.mark.parametrize("mode", ["hard", "soft", "auto", "auto_soft"])
def test_equals_the_definition(mode: str, experts: int, window: int, gated: bool) -> None:
    packed = (experts + window + gated) % 2 == 1  # one part or three, by turns
    case = Case(
        _routing(mode, experts, window, top_k=1 + window % 2),
        ALL if gated else ALL[:3],
        sizes=(17, 9, 8) if packed else (21,),
        ranks=(3, 1, 2) if packed else (5,),
        seed=experts * 10 + window,
    )
    ids = ("rows", "tokens", "one")[(experts + window) % 3]
    assert _check(case, ids) < TOLERANCE


