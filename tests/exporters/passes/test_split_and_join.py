"""Packed projections with some adapted parts, and modules that the graph computes in separate projections."""

from __future__ import annotations

from pathlib import Path

import pytest

from lime_edge.contract.routing import Routing
from tests.exporters.export_case import (
    TOLERANCE,
    error,
    make_export,
    oracle,
    prompt,
    run,
)


@pytest.mark.parametrize(
    "names", [("q_proj", "v_proj"), ("k_proj", "o_proj"), ("q_proj",), ("down_proj",)], ids="+".join
)
def test_only_some_projections_adapted(names: tuple[str, ...], backbones: dict[str, Path], tmp_path: Path) -> None:
    exported = make_export(backbones["qwen2"], tmp_path / "out", names=names)
    skills = exported.skills(1)
    found = run(exported.session(), prompt(1), bank=exported.bank(skills), skill_ids=exported.ids([[1]]))["logits"]
    assert error(found, oracle(exported, prompt(1), [*skills])) < TOLERANCE


def test_phi_3_in_half_precision_joins_what_the_graph_separates(backbones: dict[str, Path], tmp_path: Path) -> None:
    routing = Routing(experts=2, mode="auto_soft")
    exported = make_export(backbones["phi3"], tmp_path / "out", "fp16", routing=routing)
    skills = exported.skills(1)
    bank = exported.bank(skills)
    found = run(exported.session(), prompt(1), bank=bank, skill_ids=exported.ids([[1]]))["logits"]
    assert error(found, oracle(exported, prompt(1), [*skills])) < 1e-2
