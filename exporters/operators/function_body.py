"""Writes the body of an ONNX function: one call per node, with deterministic names.

ONNX Runtime folds every node that depends on constants and attributes only when it creates a session, so such nodes
cost nothing per token.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import onnx_ir as ir


class Body:
    """Collects the nodes of one function.

    Args:
        inputs: Names of the function's inputs.
        dtype: Float type of the constants made by `real`.
    """

    def __init__(self, inputs: Sequence[str], dtype: ir.DataType) -> None:
        self.inputs = {name: ir.Value(name=name) for name in inputs}
        self.nodes: list[ir.Node] = []
        self.dtype = dtype
        self._constants: dict[tuple[str, bytes, tuple[int, ...]], ir.Value] = {}

    def __call__(self, op: str, *inputs: ir.Value, **attributes: int) -> ir.Value:
        """Add a node with one output."""
        return self.many(1, op, *inputs, **attributes)[0]

    def many(self, count: int, op: str, *inputs: ir.Value, **attributes: int) -> tuple[ir.Value, ...]:
        """Add a node with `count` outputs."""
        listed = [ir.AttrInt64(name, value) for name, value in attributes.items()]
        return self._add(op, count, inputs, listed)

    def real(self, values: npt.ArrayLike) -> ir.Value:
        """A constant of the function's float type."""
        return self._constant(np.asarray(values, self.dtype.numpy()))

    def whole(self, values: npt.ArrayLike) -> ir.Value:
        """An int64 constant."""
        return self._constant(np.asarray(values, np.int64))

    def attribute(self, name: str, many: bool = False) -> ir.Value:
        """An integer attribute of the calling node as int64 or, with `many`, a list of integers as int64 [n]."""
        kind = ir.AttributeType.INTS if many else ir.AttributeType.INT
        return self._add("Constant", 1, (), [ir.RefAttr("value_ints" if many else "value_int", name, kind)])[0]

    def _constant(self, array: npt.NDArray[np.generic]) -> ir.Value:
        key = (str(array.dtype), array.tobytes(), array.shape)
        if key not in self._constants:
            self._constants[key] = self._add("Constant", 1, (), [ir.AttrTensor("value", ir.tensor(array))])[0]
        return self._constants[key]

    def _add(
        self, op: str, count: int, inputs: Sequence[ir.Value], attributes: Sequence[ir.Attr]
    ) -> tuple[ir.Value, ...]:
        name = f"{op}_{len(self.nodes)}"
        outputs = [ir.Value(name=f"{name}_{i}" if count > 1 else name) for i in range(count)]
        self.nodes.append(ir.Node("", op, inputs, attributes, outputs=outputs, name=name))
        return tuple(outputs)

    def function(
        self, domain: str, name: str, outputs: dict[str, ir.Value], attributes: Sequence[ir.Attr], opset: int
    ) -> ir.Function:
        """The finished function; its outputs get the keys of `outputs` as names."""
        for public, value in outputs.items():
            value.name = public
        graph = ir.Graph(
            list(self.inputs.values()), list(outputs.values()), nodes=self.nodes, opset_imports={"": opset}, name=name
        )
        return ir.Function(domain, name, graph=graph, attributes=attributes)
