"""``general.lime``: the vectors trained with the shared adapter, as a skill package."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from lime_edge import Runtime, read_skill
from lime_edge.training import checkpoint
from lime_edge.training.general_skill import general_skill
from tests.support.tiny_training import save, wrapped
from tests.support.train_case import exported, trained

pytestmark = pytest.mark.usefixtures("float32")


def test_the_general_skill_of_a_checkpoint() -> None:
    output, _ = trained()
    skill = read_skill(output / "general.lime")
    assert (skill.manifest.name, skill.manifest.activation, skill.dtype) == ("general", "always", "F16")
    assert (len(skill.manifest.golden), skill.manifest.experts) == (2, 3)
    model, _, _ = checkpoint.open_checkpoint(output, torch.float32)
    for name, vector in checkpoint.get_vectors(model).items():
        np.testing.assert_allclose(skill.tensors[name], vector, rtol=1e-3, atol=1e-6)
    Runtime.load(exported(False)[0], threads=1).load_skill(skill.path, prove=True)


def test_the_general_skill_of_an_older_checkpoint(tmp_path: Path) -> None:
    save(wrapped(kinds=("expert", "shift", "rank")), tmp_path)
    skill = read_skill(general_skill(tmp_path))
    assert skill.path == tmp_path / "general.lime"
    assert skill.kinds == ("expert", "shift", "rank")
    assert skill.manifest.golden == []
    assert skill.manifest.backbone_name == "llama"
