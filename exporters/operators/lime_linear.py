"""The operators ``ai.lime::LimeLinear<n>`` and ``LimeGain<n>``, as ONNX functions of standard operators.

One node adapts one projection of the graph, which covers n modules side by side ("parts": packed q, k and v are three).
Any ONNX Runtime can run the function; a native kernel of the same name may replace it. It implements LiME (arXiv
2604.02338), causal and per token. A function reads a fixed list of kinds of vectors. In a graph where some modules
have the gain alone and others have more, the former use LimeGain.

Inputs (B rows, S tokens, D in, H = sum of the parts' H_i out, R = sum of their ranks, E experts):

    x              [B, S, D]           input of the projection
    y              [B, S, H]           its frozen output, bias included
    A              [D, R]              the parts' shared A, transposed, side by side
    B1 .. Bn       [r_i, H_i]          the parts' shared B, transposed, LoRA's scaling folded in
    bank           [N, P]              one row per skill
    skill_ids      [B or 1, S or 1], int64
    factor         [B, S, H]           of LimeLinearTimes and LimeGainTimes only: multiplies out elementwise
    past_evidence  [B or 1, n - 1, C + 1]   with a window of n > 1 only: evidence of the previous tokens, for all
                                       modules of the graph side by side; the last column is 1 for a token
                                       that exists, and the whole row is 0 for one that does not

A, B and bank have the same float type: that of x and y, or fp16.
Outputs: out [B, S, H] and, with a window only, evidence [B, S, n * E].

A row of the bank has E segments, one for each expert. A skill id n > 0 names row n, of which only the first segment is
used: a skill of one expert. An id -n names row n as a skill of E experts. Any id outside 1 - N .. N - 1 (0 .. N - 1 if
E = 1) is an error in ONNX Runtime (Gather out of bounds). Only the blocks in use are read, so that the cost does not
depend on N. A row of zeros gives y, or its product with the factor, bit for bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir

from lime_edge.contract.module_table import ALIGNMENT
from lime_edge.contract.names import DOMAIN
from lime_edge.contract.routing import Routing
from lime_edge.contract.vector_kinds import Kind

from .function_body import Body
from .routing import evidence, select, window_mean

MINIMUM_OPSET = 21

_BEYOND = 2**31  # no bank has that many rows


@dataclass(frozen=True)
class Operator:
    """The properties that all nodes of one operator in one graph share.

    Args:
        parts: Number of modules that a node covers.
        routing: Routing constants.
        kinds: Kinds of vectors in the bank, in order; at least one besides ``rank``.
        row_size: P, the number of floats in a bank row.
        dtype: Float type of the activations.
        stored: Float type of bank and shared adapter: `dtype`, or fp16 to halve their memory and the cost of reading.
        opset: Opset of the standard operators.
        aligned: Every node has one part whose fields fill its block exactly, which saves two nodes.
        gain_only: The modules have the gain alone, in a graph where other modules have more.
        times: The node has an input `factor`: it also computes the product that follows the projection.
    """

    parts: int
    routing: Routing
    kinds: tuple[Kind, ...]
    row_size: int
    dtype: ir.DataType = ir.DataType.FLOAT
    stored: ir.DataType = ir.DataType.FLOAT
    opset: int = MINIMUM_OPSET
    aligned: bool = False
    gain_only: bool = False
    times: bool = False

    @property
    def name(self) -> str:
        return f"{'LimeGain' if self.gain_only else 'LimeLinear'}{'Times' if self.times else ''}{self.parts}"

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the inputs, in order."""
        shared = tuple(f"B{part + 1}" for part in range(self.parts))
        last = [name for name, has in (("factor", self.times), ("past_evidence", self.routing.window > 1)) if has]
        return ("x", "y", "A", *shared, "bank", "skill_ids", *last)

    @property
    def fields(self) -> tuple[Kind, ...]:
        """The kinds whose vectors are as wide as the output."""
        return tuple(kind for kind in self.kinds if kind != "rank")

    @property
    def adapts(self) -> bool:
        """Whether the shared adapter's output is used, beside the evidence."""
        return "expert" in self.kinds

    @property
    def routed(self) -> bool:
        """Whether anything depends on the routing: one expert always has weight 1."""
        return self.routing.experts > 1 or self.routing.window > 1

    def attributes(
        self, sizes: Sequence[int], ranks: Sequence[int], bank_offset: int, evidence_offset: int
    ) -> list[ir.Attr]:
        """Attributes of one node: everything that a kernel needs beside the inputs.

        Args:
            sizes: H_i of every part.
            ranks: r_i of every part.
            bank_offset: Where the block of the first part begins in a segment, in numbers.
            evidence_offset: First column of this node's evidence.
        """
        routing = self.routing
        return [
            *(ir.AttrInt64(key, getattr(routing, key)) for key in ("experts", "keep", "window")),
            *(ir.AttrFloat32(key, getattr(routing, key)) for key in ("gamma", "temperature", "theta", "softness")),
            ir.AttrString("mode", routing.mode),
            ir.AttrString("kinds", ",".join(self.kinds)),
            ir.AttrInt64s("parts", sizes),
            ir.AttrInt64s("ranks", ranks),
            ir.AttrInt64("bank_offset", bank_offset),
            ir.AttrInt64("evidence_offset", evidence_offset),
        ]

    def node(
        self, inputs: Sequence[ir.Value], outputs: Sequence[ir.Value], attributes: Sequence[ir.Attr], name: str
    ) -> ir.Node:
        """A node that calls the operator."""
        return ir.Node(DOMAIN, self.name, inputs, attributes, outputs=outputs, name=name)

    def function(self) -> ir.Function:
        """The operator's body."""
        body = Body(self.inputs, self.dtype)
        outputs = _Writer(self, body).outputs()
        sizes = [1] * self.parts
        names = [attribute.name for attribute in self.attributes(sizes, sizes, 0, 0)]
        # An attribute without a type has no default, so every node must set every attribute.
        declared = [ir.Attr(name, ir.AttributeType.UNDEFINED, None) for name in names]
        return body.function(DOMAIN, self.name, outputs, declared, self.opset)


class _Writer:
    """Writes the body of one operator.

    In the shapes below, [b, s] is the shape of the skill ids, [B or 1, S or 1], and K the number of fields.
    """

    def __init__(self, operator: Operator, body: Body) -> None:
        self.operator, self.body = operator, body
        self.experts = operator.routing.experts
        self.sizes = body.attribute("parts", many=True)  # [n]
        self.ranks = body.attribute("ranks", many=True)  # [n]

    def outputs(self) -> dict[str, ir.Value]:
        body, operator = self.body, self.operator
        y = body.inputs["y"]
        outputs: dict[str, ir.Value] = {}
        weights: tuple[ir.Value, ...] = ()
        if operator.adapts or operator.routed:
            low = body("MatMul", body.inputs["x"], self.widened(body.inputs["A"]))  # [B, S, R]
            shared = self.shared()  # [R, H]
        if operator.routed:
            weights = self.weights(y, low, shared, outputs)  # n of [B, S, 1, E]
        vectors, gates = self.vectors()
        d = None
        if operator.adapts:
            gated = body("Mul", low, self.mixed(weights, gates, 1)) if gates else low
            d = body("MatMul", gated, shared)
        out = self.modulated(y, d, self.mixed(weights, vectors, len(operator.fields)))
        if operator.times:
            out = body("Mul", out, body.inputs["factor"])
        return {"out": out, **outputs}

    def shared(self) -> ir.Value:
        """The parts' B as diagonal blocks of one matrix [R, H], so that one product computes d of all parts."""
        body, parts = self.body, self.operator.parts
        if parts == 1:
            return self.widened(body.inputs["B1"])
        before = body("CumSum", self.sizes, body.whole(0), exclusive=1)
        after = body("CumSum", self.sizes, body.whole(0), exclusive=1, reverse=1)
        left = body.many(parts, "Split", before, axis=0, num_outputs=parts)
        right = body.many(parts, "Split", after, axis=0, num_outputs=parts)
        zero, rows = body.whole([0]), []
        for part in range(parts):
            pads = body("Concat", zero, left[part], zero, right[part], axis=0)
            rows.append(body("Pad", body.inputs[f"B{part + 1}"], pads))
        return self.widened(body("Concat", *rows, axis=0))

    def weights(
        self, y: ir.Value, low: ir.Value, shared: ir.Value, outputs: dict[str, ir.Value]
    ) -> tuple[ir.Value, ...]:
        """Expert weights of every part, each [B, S, 1, E]; adds the evidence to `outputs`."""
        body, operator, parts = self.body, self.operator, self.operator.parts
        first = body("CumSum", self.sizes, body.whole(0), exclusive=1)
        leading = body(  # [n * E], indices of each part's first E components
            "Reshape",
            body("Add", body("Unsqueeze", first, body.whole([1])), body.whole([list(range(self.experts))])),
            body.whole([-1]),
        )
        logits = evidence(
            body,
            operator.routing,
            parts,
            body("Gather", y, leading, axis=2),
            # evidence comes before the rank gate, and need not wait for d
            body("MatMul", low, body("Gather", shared, leading, axis=1)),
        )  # [B, S, n, E]
        if operator.routing.window > 1:
            flat = body("Reshape", logits, body.whole([0, 0, -1]))
            outputs["evidence"] = flat
            mean = window_mean(body, operator.routing.window, parts * self.experts, flat)
            logits = body("Reshape", mean, body.whole([0, 0, parts, self.experts]))
        chosen = select(body, operator.routing, logits)
        return body.many(parts, "Split", chosen, axis=2, num_outputs=parts) if parts > 1 else (chosen,)

    def vectors(self) -> tuple[list[ir.Value], list[ir.Value]]:
        """Every part's fields [b, s, E, K * H_i] and rank gates [b, s, E, r_i] (none without the kind)."""
        body, operator = self.body, self.operator
        gated, parts = "rank" in operator.kinds, operator.parts
        fields = body("Mul", self.sizes, body.whole(len(operator.fields)))
        gates = body("Mul", self.ranks, body.whole(int(gated)))
        used = body("Add", fields, gates)
        # blocks start at multiples of ALIGNMENT: round up
        units = body("Div", body("Add", used, body.whole(ALIGNMENT - 1)), body.whole(ALIGNMENT))  # [n]
        block = body("Reshape", self.block(units), body.whole([0, 0, self.experts, -1]))  # vectors of all parts
        if operator.aligned:
            return [block], []
        padding = body("Sub", body("Mul", units, body.whole(ALIGNMENT)), used)
        columns = [body("Unsqueeze", column, body.whole([1])) for column in (fields, gates, padding)]
        lengths = body("Reshape", body("Concat", *columns, axis=1), body.whole([-1]))  # [3 * n]
        pieces = body.many(3 * parts, "Split", block, lengths, axis=3)
        return list(pieces[0::3]), list(pieces[1::3]) if gated else []

    def block(self, units: ir.Value) -> ir.Value:
        """This node's blocks of the segments in use, [b, s, E, U, ALIGNMENT], or [b, s, U, ALIGNMENT] if E is 1."""
        body, ids = self.body, self.body.inputs["skill_ids"]
        bank = body("Reshape", body.inputs["bank"], body.whole([-1, ALIGNMENT]))  # a view
        row = body("Abs", ids) if self.experts > 1 else ids
        # Gather counts negative indices from the end, and the product may overflow: either would read another skill's
        # row. (Min would be shorter, but onnxruntime 1.31.1 computes it wrongly for int64.)
        small = body("Equal", body("BitwiseAnd", row, body.whole(_BEYOND - 1)), row)
        safe = body("Where", small, row, body.whole(_BEYOND))
        units_of_row = self.operator.row_size // ALIGNMENT
        first = body("Unsqueeze", body("Mul", safe, body.whole(units_of_row)), body.whole([2]))  # [b, s, 1]
        if self.experts > 1:  # a skill of one expert has it in the first segment, so its segment index is always 0
            many = body("Cast", body("Less", ids, body.whole(0)), to=ir.DataType.INT64)
            segments = body.whole([expert * units_of_row // self.experts for expert in range(self.experts)])
            first = body("Add", first, body("Mul", body("Unsqueeze", many, body.whole([2])), segments))  # [b, s, E]
            first = body("Unsqueeze", first, body.whole([3]))
        start = body("Div", body.attribute("bank_offset"), body.whole(ALIGNMENT))
        total = body("ReduceSum", units, keepdims=0)
        inside = body("Add", body("Range", body.whole(0), total, body.whole(1)), start)  # [U]
        return self.widened(body("Gather", bank, body("Add", first, inside), axis=0))

    def widened(self, value: ir.Value) -> ir.Value:
        """A stored value in the activations' type; ONNX Runtime converts constants only once."""
        operator = self.operator
        return value if operator.stored == operator.dtype else self.body("Cast", value, to=operator.dtype)

    def mixed(self, weights: Sequence[ir.Value], vectors: Sequence[ir.Value], kinds: int) -> ir.Value:
        """The experts' vectors mixed by the routing weights, [B or b, S or s, K * widths]: by kind, then by part."""
        body = self.body
        if self.experts > 1:
            vectors = [body("MatMul", w, v) for w, v in zip(weights, vectors, strict=True)]  # [B, S, 1, K * width]
        if len(vectors) > 1 and kinds > 1:
            vectors = [body("Reshape", v, body.whole([0, 0, kinds, -1])) for v in vectors]
        together = body("Concat", *vectors, axis=3) if len(vectors) > 1 else vectors[0]
        return body("Reshape", together, body.whole([0, 0, -1]))

    def modulated(self, y: ir.Value, d: ir.Value | None, mixed: ir.Value) -> ir.Value:
        """y + d * expert + y * gain + shift, [B, S, H]. The sum starts with y, so adding zeros keeps its bits."""
        body, kinds = self.body, self.operator.fields
        count = len(kinds)
        fields = body.many(count, "Split", mixed, axis=2, num_outputs=count) if count > 1 else (mixed,)
        terms = [y]
        for kind, field in zip(kinds, fields, strict=True):
            factor = {"expert": d, "gain": y}.get(kind)
            terms.append(field if factor is None else body("Mul", factor, field))
        return body("Sum", *terms)
