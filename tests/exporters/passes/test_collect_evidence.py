"""The evidence of one call, fed back to the next."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lime_edge.contract.routing import Routing
from lime_edge.exporters import Precision
from tests.exporters.export_case import (
    TOLERANCE,
    Array,
    error,
    make_export,
    oracle,
    prompt,
    run,
)


@pytest.mark.parametrize("precision", ["fp32", "int4"])
def test_steps_continue_a_prefill(precision: Precision, backbones: dict[str, Path], tmp_path: Path) -> None:
    routing, kinds = Routing(experts=3, window=3, mode="auto_soft"), ("expert", "shift", "rank")
    exported = make_export(backbones["llama"], tmp_path / "out", precision, routing=routing, kinds=kinds)
    session, skills, tokens = exported.session(), exported.skills(), prompt(2, 8)
    bank, ids = exported.bank(skills), exported.ids([[1], [2]])
    whole = run(session, tokens, bank=bank, skill_ids=ids)
    columns = len(exported.contract.table.modules) * routing.experts
    assert whole["lime.evidence"].shape == (2, 8, columns)
    past = np.zeros((2, 2, columns + 1), np.float32)
    cache: dict[str, Array] | None = None
    for start, end in ((0, 4), (4, 5), (5, 6), (6, 7), (7, 8)):
        cache = run(session, tokens[:, start:end], cache, past_evidence=past, bank=bank, skill_ids=ids)
        new = np.concatenate([cache["lime.evidence"], np.ones((2, end - start, 1), np.float32)], axis=2)
        past = np.concatenate([past, new], axis=1)[:, -2:]
        # int4 also rounds activations in every call, so only the operators are exact
        assert error(cache["logits"], whole["logits"][:, start:end]) < (TOLERANCE if precision == "fp32" else 2e-2)
    if precision == "fp32":
        assert error(whole["logits"], oracle(exported, tokens, [*skills])) < TOLERANCE
