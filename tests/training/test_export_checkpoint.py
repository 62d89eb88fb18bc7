"""Exports of a checkpoint: which skills they accept, and what they leave out."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lime_edge import Runtime
from lime_edge.errors import ExportError, SkillMismatchError
from lime_edge.training import backbone, checkpoint
from lime_edge.training.export_checkpoint import export_checkpoint
from lime_edge.training.learn_skill import Recipe, learn
from tests.support.tiny_training import backbone_dir, tasks
from tests.support.train_case import PLAN, exported, run, trained

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
            with pytest.raises(SkillMismatchError, match=r"up_proj.* where the model accepts only the gain"):
                runtime.load_skill(shared / "general.lime")
        if expert:
            runtime.load_skill(more.path, prove=True)
    assert sizes[0] > sizes[1] > sizes[2]
    with pytest.raises(SkillMismatchError, match="expert"):
        runtime.load_skill(more.path)


def test_an_export_names_its_backbone_and_its_adapter() -> None:
    model, _, _ = checkpoint.open_checkpoint(trained()[0], torch.float32)
    for rank_gate in (False, True):
        directory, contract = exported(rank_gate)
        assert contract.backbone_name == str(backbone_dir())
        assert contract.backbone_digest == backbone.digest(backbone_dir())
        assert contract.adapter_digest == checkpoint.adapter_digest(model)
        assert ("rank" in contract.table.kinds) == rank_gate
        assert {path.name for path in directory.iterdir()} >= {name for name, _ in contract.files}


def test_a_bad_output_is_refused_before_the_backbone_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backbone, "resolve", lambda _: pytest.fail("the backbone was looked up"))
    (tmp_path / "file").touch()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").touch()
    for output, fault in (
        ("file", "is not a directory"),
        ("file/below", "lies below a file"),
        ("full", "is not empty"),
        ("n" * 300, "File name too long"),
        (f"{'n' * 300}/below", "File name too long"),
    ):
        with pytest.raises(ExportError, match=fault):
            export_checkpoint(trained()[0], tmp_path / output)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "full"]
