"""A graph of one operator node with random weights and skills, and its expected output. Runs without torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import onnxruntime as ort

from lime_edge.contract.module_table import ALIGNMENT, Module, ModuleTable
from lime_edge.contract.names import DOMAIN
from lime_edge.contract.routing import Routing
from lime_edge.contract.vector_kinds import Kind
from lime_edge.exporters.operators.lime_linear import Operator
from tests import reference

Array = npt.NDArray[Any]

ALL: tuple[Kind, ...] = ("expert", "gain", "shift", "rank")
TOLERANCE = 1e-5  # of the largest output; fp32 against float64
BAD_IDS = [4, -4, 2**31, -(2**31), 2**32, 2**62, -(2**62), -(2**63)]  # in a bank of four
MARGIN = 1e-5  # tokens whose selection depends on a smaller difference are not compared


@dataclass
class Case:
    """One projection of one or three modules with random weights, and a bank of random skills."""

    routing: Routing
    kinds: tuple[Kind, ...] = ALL[:3]
    inputs: int = 11
    sizes: tuple[int, ...] = (13,)
    ranks: tuple[int, ...] = (3,)
    skills: int = 4
    before: int = 70  # H of a module before these in the table, so that offsets are not 0
    seed: int = 0
    dtype: ir.DataType = ir.DataType.FLOAT
    gain_only: bool = False  # the node reads the gain alone; other modules of the table have more kinds
    times: bool = False  # the node has the input `factor`
    half: bool = False  # bank and shared adapter are fp16; the activations keep `dtype`
    table: ModuleTable = field(init=False)

    def __post_init__(self) -> None:
        rng = np.random.default_rng(self.seed)
        own = tuple(Module(f"m{i}", h, r) for i, (h, r) in enumerate(zip(self.sizes, self.ranks, strict=True)))
        ahead = (Module("ahead", self.before, 2),) if self.before else ()
        kinds, gains = (ALL, frozenset(module.name for module in own)) if self.gain_only else (self.kinds, frozenset())
        self.table = ModuleTable((*ahead, *own), self.routing.experts, kinds, gains)
        self.own = own
        self.weights = [rng.standard_normal((h, self.inputs)) / 3 for h in self.sizes]
        self.a = [rng.standard_normal((r, self.inputs)) / 3 for r in self.ranks]
        self.b = [rng.standard_normal((h, r)) for h, r in zip(self.sizes, self.ranks, strict=True)]
        self.scales = [0.5 + i for i in range(len(own))]
        self.vectors = [self._skill(rng, skill) for skill in range(self.skills)]
        # NaN in the segments that nothing may read: those behind a skill of one expert
        self.bank = np.full((self.skills, self.table.row_size), np.nan, np.float32)
        self.bank[0] = 0
        for skill in range(1, self.skills):
            self.put(skill, self.vectors[skill])
        if self.half:  # round here, so that the definition uses the rounded values, too
            self.bank = self.bank.astype(np.float16)
            self.a = [a.astype(np.float16).astype(np.float64) for a in self.a]
            self.b = [b.astype(np.float16).astype(np.float64) for b in self.b]
            self.scales = [2.0**i for i in range(len(own))]

    def put(self, skill: int, vectors: dict[str, Array]) -> None:
        """Write a skill's vectors to its row of the bank."""
        packed = self.table.pack(vectors).ravel()
        self.bank[skill, : len(packed)] = packed

    def experts(self, skill: int) -> int:
        """Every third skill has one expert, the others E."""
        return 1 if skill % 3 == 2 else self.routing.experts

    def skill_ids(self, skills: Array) -> Array:
        """Skill ids of rows of the bank; negative for skills with several experts. Other numbers stay unchanged."""
        several = [row for row in range(1, self.skills) if self.experts(row) > 1]
        return np.where(np.isin(skills, several), -skills, skills)

    def _skill(self, rng: np.random.Generator, skill: int) -> dict[str, Array]:
        e = self.experts(skill)
        shapes = {(k, m.name): m.shape(k, e) for m in self.own for k in self.kinds}
        return {f"{k}.{n}": rng.standard_normal(s).astype(np.float32) for (k, n), s in shapes.items()}

    def session(self, library: Path | None = None, threads: int = 1, function: bool = True) -> ort.InferenceSession:
        """A session that runs the library's native operator, or without a library the model's function."""
        options = ort.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        if library is not None:
            options.register_custom_ops_library(str(library))
        options.log_severity_level = 4
        model = ir.to_proto(self.model())
        onnx.checker.check_model(model, full_check=True)
        if not function:
            del model.functions[:]
        return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])

    def operator(self) -> Operator:
        width = len([kind for kind in self.kinds if kind != "rank"])
        aligned = len(self.own) == 1 and "rank" not in self.kinds and width * self.sizes[0] % ALIGNMENT == 0
        return Operator(
            len(self.own),
            self.routing,
            self.kinds,
            self.table.row_size,
            dtype=self.dtype,
            stored=self.stored,
            aligned=aligned,
            gain_only=self.gain_only,
            times=self.times,
        )

    @property
    def stored(self) -> ir.DataType:
        return ir.DataType.FLOAT16 if self.half else self.dtype

    def model(self) -> ir.Model:
        """A graph of one node; y is an input."""
        operator = self.operator()
        total, window = sum(self.sizes), self.routing.window
        columns = len(self.table.modules) * self.routing.experts
        shapes: dict[str, list[Any]] = {
            "x": ["B", "S", self.inputs],
            "y": ["B", "S", total],
            "bank": ["N", self.table.row_size],
            "skill_ids": ["G", "T"],
            "factor": ["B", "S", total],
            "past_evidence": ["Z", window - 1, columns + 1],
        }
        shared = {"A": np.concatenate([a.T for a in self.a], axis=1)}
        shared |= {f"B{i + 1}": s * b.T for i, (s, b) in enumerate(zip(self.scales, self.b, strict=True))}
        values: dict[str, ir.Value] = {}
        kinds = dict.fromkeys(("x", "y", "factor", "past_evidence"), self.dtype) | {"skill_ids": ir.DataType.INT64}
        for name in operator.inputs:
            values[name] = ir.Value(name=name, type=ir.TensorType(kinds.get(name, self.stored)))
            if name in shared:
                values[name].const_value = ir.tensor(shared[name].astype(self.stored.numpy()), name=name)
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
        return x, self.frozen(x)

    def frozen(self, x: Array) -> Array:
        """The frozen output y of x."""
        return np.concatenate([x @ w.T for w in self.weights], axis=2)

    def run(self, session: ort.InferenceSession, x: Array, y: Array, ids: Array, past: Array | None = None) -> Any:
        """The node's outputs. `ids` are rows of the bank; other numbers are fed unchanged."""
        real = self.dtype.numpy()
        feed = {
            "x": x.astype(real),
            "y": y.astype(real),
            "bank": self.bank.astype(self.stored.numpy()),
            "skill_ids": self.skill_ids(ids),
        }
        if self.times:
            feed["factor"] = self.factor(y)
        if self.routing.window > 1:
            feed["past_evidence"] = self.no_past() if past is None else past
        return session.run(None, feed)

    def factor(self, y: Array) -> Array:
        """A factor of the shape of y; each element depends on the same element of y only."""
        factor: Array = np.cos(3 * y.astype(self.dtype.numpy()))
        return factor

    def base(self, y: Array) -> Array:
        """The exact output of tokens without a skill."""
        real = y.astype(self.dtype.numpy())
        return real * self.factor(y) if self.times else real

    def no_past(self, rows: int = 1) -> Array:
        columns = len(self.table.modules) * self.routing.experts
        return np.zeros((rows, self.routing.window - 1, columns + 1), self.dtype.numpy())

    def expected(self, x: Array, ids: Array) -> tuple[Array, Array]:
        """Output [B, S, H] by the definition, and which tokens are far from every selection limit [B, S]."""
        out, clear = [], np.ones(x.shape[:2], bool)
        every = np.broadcast_to(ids, x.shape[:2])
        for i, module in enumerate(self.own):
            rows = []
            for b in range(len(x)):
                # every skill over the whole row, then the output of each token's own skill
                by_skill = [self._module(i, module.name, x[b], skill) for skill in range(self.skills)]
                rows.append(np.stack([by_skill[every[b, t]][0][t] for t in range(x.shape[1])]))
                clear[b] &= [clear_of_limits(row, self.routing) for row in self._means(by_skill[0][1])]
            out.append(np.stack(rows))
        factor = self.factor(self.frozen(x)) if self.times else 1.0
        return np.concatenate(out, axis=2) * factor, clear

    def _module(self, i: int, name: str, x: Array, skill: int) -> tuple[Array, Array]:
        segments = self.bank[skill].reshape(self.routing.experts, -1)[: self.experts(skill)].astype(np.float64)
        vectors: dict[str, Array] = {}
        for kind in self.kinds:
            start, (experts, width) = self.table.offsets[kind, name], self.own[i].shape(kind, self.routing.experts)
            vectors[kind] = np.broadcast_to(segments[:, start : start + width], (experts, width))
        return reference.lime_linear(
            x, self.weights[i], None, self.a[i], self.b[i], self.scales[i], vectors, self.routing
        )

    def _means(self, logits: Array) -> Array:
        return reference.window_mean(logits, np.zeros((0, self.routing.experts)), self.routing.window)


def clear_of_limits(logits: Array, routing: Routing) -> bool:
    """Whether the selection of every expert is clear by more than MARGIN; below that, rounding may decide."""
    if routing.mode in ("soft", "auto_soft"):
        return True  # continuous
    prob = np.sort(reference.softmax(logits / routing.temperature))
    gaps = [prob[-routing.keep] - prob[-routing.keep - 1]] if routing.keep < routing.experts else []
    if routing.mode == "auto":
        gaps += [abs(p - routing.theta * prob[-1]) for p in prob[:-1]]
    return min(gaps, default=1.0) > MARGIN
