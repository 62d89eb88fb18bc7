"""Adds the optional graph inputs for skills: the bank, the skill ids and, with a window, the past evidence."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from lime_edge.contract.module_table import ModuleTable
from lime_edge.contract.names import BANK, PAST_EVIDENCE, SKILL_IDS
from lime_edge.contract.routing import Routing

from .collect_evidence import evidence_columns


class DeclareInputs(ir.passes.InPlacePass):
    """Declares the graph inputs for skills. All are optional.

        inputs:  input_ids, ...
    ->  inputs:  input_ids, ..., lime.bank [lime_skills, P], lime.skill_ids [lime_batch, lime_tokens]
                 and, with a window of n > 1, lime.past_evidence [lime_rows, n - 1, R + 1]

    Each input is an initializer, too. The default is one skill of zeros, used by every token: the base.
    """

    def __init__(self, table: ModuleTable, routing: Routing, dtype: ir.DataType, stored: ir.DataType) -> None:
        self._empty: dict[str, tuple[npt.NDArray[np.generic], list[str | int]]] = {
            BANK: (np.zeros((1, table.row_size), stored.numpy()), ["lime_skills", table.row_size]),
            SKILL_IDS: (np.zeros((1, 1), np.int64), ["lime_batch", "lime_tokens"]),
        }
        if routing.window > 1:
            past, columns = routing.window - 1, evidence_columns(table) + 1
            zeros = np.zeros((1, past, columns), dtype.numpy())
            self._empty[PAST_EVIDENCE] = (zeros, ["lime_rows", past, columns])

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        graph = model.graph
        new = [name for name in self._empty if name not in graph.initializers]
        for name in new:
            array, shape = self._empty[name]
            value = ir.Value(name=name, shape=ir.Shape(shape), const_value=ir.tensor(array, name=name))
            value.type = ir.TensorType(ir.DataType.from_numpy(array.dtype))
            graph.inputs.append(value)
            graph.register_initializer(value)
        return ir.passes.PassResult(model, modified=bool(new))
