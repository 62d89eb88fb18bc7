"""Exports of a checkpoint: which skills they accept, and what they leave out."""

from __future__ import annotations

from pathlib import Path

import pytest

from lime_edge import Runtime
from lime_edge.errors import SkillMismatchError
from lime_edge.training.export_checkpoint import export_checkpoint
from lime_edge.training.learn_skill import Recipe, learn
from tests.support.tiny_training import tasks
from tests.support.train_case import PLAN, run

pytestmark = pytest.mark.usefixtures("float32")


def test_an_export_takes_what_skills_hold_and_no_more(tmp_path: Path) -> None:
    shared = tmp_path / "checkpoint"
    run(shared, target_modules=["o_proj", "up_proj"])
    one, _ = learn(tasks() / "skill", shared, tmp_path / "one.lime", Recipe("one"), PLAN)
    found = {(name.split(".")[0], name.rpartition(".")[2]) for name in one.tensors}
    assert found == {("gain", "up_proj"), ("gain", "o_proj"), ("shift", "o_proj")}
    more, _ = learn(tasks() / "skill", shared, tmp_path / "more.lime", Recipe("more", expert=True), PLAN)
    assert {name for name in more.tensors if name.startswith("expert.")} == more.tensors.keys() - one.tensors.keys()
    sizes = []
    for gain_only, expert in (((), True), (("up_proj",), True), (("up_proj",), False)):
        contract = export_checkpoint(
            shared, tmp_path / "model", "fp32", overwrite=True, gain_only=gain_only, expert=expert
        )
        runtime = Runtime.load(tmp_path / "model")
        runtime.load_skill(one.path, prove=True)
        sizes.append(contract.table.row_size)
        if gain_only:
            with pytest.raises(SkillMismatchError, match=r"up_proj.* of which the model takes the gain alone"):
                runtime.load_skill(shared / "general.lime")
        if expert:
            runtime.load_skill(more.path, prove=True)
    assert sizes[0] > sizes[1] > sizes[2]
    with pytest.raises(SkillMismatchError, match="expert"):
        runtime.load_skill(more.path)
