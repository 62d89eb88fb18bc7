"""Methods of the skill benchmark: what trains, what is stored, and rounding to 4 bits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.skill_quality import methods
from benchmarks.skill_quality.methods import METHODS, Lime
from lime_edge import read_skill
from lime_edge.contract.routing import Routing
from lime_edge.training import checkpoint
from tests.support.tiny_training import ids, logits, save, wrapped

pytestmark = [
    pytest.mark.usefixtures("float32"),
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning"),  # from PEFT
]


def test_a_part_of_a_skill_trains_and_holds_that_part_alone(shared: Path, tmp_path: Path) -> None:
    method = Lime({"v_proj": ("expert", "shift"), "": ("gain",)})
    model, _ = method.open(shared)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trained
    assert all(("v_proj" in name) != ("lime_gain" in name) for name in trained)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name in trained:
                parameter.add_(0.1)
    tokens = ids(1, 6)
    stored = method.store(model, tmp_path)
    skill = read_skill(tmp_path / "skill.lime")
    assert {name.split(".")[0] for name in skill.tensors if "v_proj" in name} == {"expert", "shift"}
    assert {name.split(".")[0] for name in skill.tensors if "q_proj" in name} == {"gain"}
    assert stored.bytes == (tmp_path / "skill.lime").stat().st_size
    assert stored.numbers == sum(p.numel() for p in model.parameters() if p.requires_grad)
    other, _ = method.open(shared)
    checkpoint.set_vectors(other, checkpoint.get_vectors(other) | dict(skill.tensors))
    assert torch.equal(logits(other, tokens), logits(model, tokens))


def test_a_specific_lora_begins_as_the_shared_adapter(tmp_path: Path) -> None:
    model = wrapped(routing=Routing(experts=1), kinds=("expert",))
    save(model, tmp_path)
    found, _ = METHODS["specific"].open(tmp_path)
    tokens = ids(1, 6)
    torch.testing.assert_close(logits(found.eval(), tokens), logits(model, tokens), rtol=1e-4, atol=1e-4)


def test_four_bits_are_a_seventh_of_the_largest() -> None:
    values = np.random.default_rng(0).normal(size=(2, 70)).astype(np.float32)
    found = methods.four_bits({"gain.a": values})["gain.a"]
    for row, kept in zip(values, found, strict=True):
        for start in range(0, 70, 32):
            step = np.abs(row[start : start + 32]).max() / 7
            assert np.abs(row - kept)[start : start + 32].max() <= 0.51 * step
            assert len(np.unique(kept[start : start + 32])) <= 15
