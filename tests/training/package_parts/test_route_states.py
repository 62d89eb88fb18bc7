"""States of a tiny backbone, centroids that learning makes, and what `lime-edge route` adds without training."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lime_edge.errors import ConfigError, DataError, ModelError, SkillMismatchError
from lime_edge.evaluation.examples import Row
from lime_edge.skills.package import read_skill, write_skill
from lime_edge.skills.route_statistics import read_statistics
from lime_edge.training.checkpoint import route_of
from lime_edge.training.dataset import encode_prompt
from lime_edge.training.export_checkpoint import export_checkpoint
from lime_edge.training.learn_skill import Recipe, learn
from lime_edge.training.package_parts import route_states
from lime_edge.training.package_parts.route_states import (
    add_route,
    add_statistics,
    general_text,
    round_weights,
    states_of,
)
from lime_edge.training.plan import TrainingPlan
from tests.support.tiny_training import backbone, save, scratch, tasks, tokenizer, wrapped, write_rows

pytestmark = pytest.mark.usefixtures("float32")

PLAN = TrainingPlan(steps=1, batch=2, vector_rate=1e-3)


def requests(texts: Sequence[str]) -> list[Row]:
    return [Row(({"role": "user", "content": text},), "yes") for text in texts]


def kinds(folder: Path, count: int = 10) -> list[str]:
    """Data files of several kinds of text."""
    words = ["red", "cat", "run", "one", "Monday", "law", "grep", "song", "tea", "sea"]
    rows = {
        word: [{"prompt": f"{word} " * (2 + number % 7) + str(number), "answer": "x"} for number in range(20)]
        for word in words[:count]
    }
    return [str(write_rows(folder / f"{word}.jsonl", some)) for word, some in rows.items()]


@pytest.fixture(scope="module")
def prepared() -> Path:
    """A checkpoint with statistics; tests must not write to it."""
    folder = scratch() / "routed"
    if not folder.exists():
        save(wrapped(kinds=("expert", "gain", "shift")), folder)
        add_statistics(folder, kinds(folder / "data"))
        shutil.rmtree(folder / "data")
    return folder


def test_states_are_those_of_the_last_tokens() -> None:
    model, texts = backbone(), ["Hello", "a much longer one " * 6, "is it so?", "no", "x " * 2000]
    found = states_of(model.eval(), tokenizer(), requests(texts), 1)
    assert len(found) == 4  # the last one is too long
    encoded = sorted((encode_prompt(tokenizer(), row.messages)[0] for row in requests(texts[:4])), key=len)
    for state, ids in zip(found, encoded, strict=True):
        with torch.inference_mode():
            alone = model(torch.tensor([ids]), output_hidden_states=True).hidden_states[1][0, -1].numpy()
        np.testing.assert_allclose(state, alone / np.sqrt(np.mean(alone**2)), atol=1e-4)
    assert states_of(model, tokenizer(), [], 1).shape == (0, found.shape[1])


def test_general_text_is_always_the_same_and_of_several_kinds() -> None:
    found = general_text()
    assert found == general_text()
    assert {"conversation", "languages", "noise"} <= found.keys()
    assert all(len(texts) >= 20 and all(text.strip() for text in texts) for texts in found.values())


def test_statistics_of_a_checkpoint(prepared: Path, tmp_path: Path) -> None:
    statistics, digest = read_statistics(prepared / "route.safetensors")
    assert (statistics.layer, statistics.width) == (1, 64)
    found = route_of(prepared)
    assert found is not None
    assert found[0].statistics == digest
    again = shutil.copytree(prepared, tmp_path / "again")
    digests = set()
    for _ in range(2):
        add_statistics(again, kinds(tmp_path / "data"))
        digests.add(read_statistics(again / "route.safetensors")[1])
    (digest,) = digests
    with pytest.raises(DataError, match="a calibration needs 8"):
        add_statistics(again, kinds(tmp_path / "few", 1))
    assert read_statistics(again / "route.safetensors")[1] == digest


def test_learning_makes_centroids_where_there_are_statistics(prepared: Path, tmp_path: Path) -> None:
    recipe: Any = Recipe(name="a", metric_rows=0)
    skill, _ = learn(tasks() / "skill", prepared, tmp_path / "a.lime", recipe, PLAN)
    assert skill.route is not None
    assert (skill.route.layer, skill.route.pooling, skill.route.centroids.shape[1]) == (1, "last", 64)
    plain = save(wrapped(kinds=("expert", "gain", "shift")), tmp_path / "plain")
    other, _ = learn(tasks() / "skill", plain, tmp_path / "b.lime", recipe, PLAN)
    assert other.route is None
    added = add_route(other.path, tasks() / "skill", prepared, tmp_path / "c.lime", "1.1.0")
    assert added.route is not None
    np.testing.assert_array_equal(added.route.centroids, skill.route.centroids)
    assert added.manifest.version == "1.1.0"
    assert added.tensors.keys() == other.tensors.keys()
    for name, vectors in other.tensors.items():
        np.testing.assert_array_equal(added.tensors[name], vectors)
    assert (added.digest != other.digest, added.manifest.golden) == (True, other.manifest.golden)


def test_rounded_weights_have_sixteen_values_in_a_block() -> None:
    model = backbone()
    before = model.model.layers[0].mlp.up_proj.weight.detach().clone()
    round_weights(model)
    after = model.model.layers[0].mlp.up_proj.weight.detach()
    plain, rounded = (weight.view(len(weight), -1, 32) for weight in (before, after))
    assert max(len(block.unique()) for row in rounded[:4] for block in row) <= 16
    steps = (plain.amax(-1).clamp_min(0) - plain.amin(-1).clamp_max(0)) / 15
    assert ((rounded - plain).abs().amax(-1) <= 1.01 * steps).all()
    assert not torch.equal(before, after)
    zeros = torch.zeros_like(before)
    model.model.layers[0].mlp.up_proj.weight.data.copy_(zeros)
    round_weights(model)
    assert torch.equal(model.model.layers[0].mlp.up_proj.weight, zeros)


def test_an_export_brings_the_statistics(prepared: Path, tmp_path: Path) -> None:
    contract = export_checkpoint(prepared, tmp_path / "model", "fp32")
    assert contract.route is not None
    assert read_statistics(tmp_path / "model" / "route.safetensors")[1] == contract.route.statistics


def test_what_cannot_get_centroids(prepared: Path, tmp_path: Path) -> None:
    plain = save(wrapped(kinds=("expert", "gain", "shift")), tmp_path / "plain")
    skill, _ = learn(tasks() / "skill", plain, tmp_path / "a.lime", Recipe(name="a", metric_rows=0), PLAN)
    with pytest.raises(ConfigError, match=r"has no route.safetensors"):
        add_route(skill.path, tasks() / "skill", plain, tmp_path / "b.lime")
    foreign = write_skill(tmp_path / "f.lime", _foreign(skill.manifest), skill.tensors)
    with pytest.raises(SkillMismatchError) as caught:
        add_route(foreign.path, tasks() / "skill", prepared, tmp_path / "b.lime")
    assert "it was made for the backbone ffffffffffff" in caught.value.faults[0]
    broken = shutil.copytree(prepared, tmp_path / "broken")
    (broken / "route.safetensors").write_bytes(b"x")
    with pytest.raises(ModelError, match="holds no statistics of states"):
        add_route(skill.path, tasks() / "skill", broken, tmp_path / "b.lime")
    assert not (tmp_path / "b.lime").exists()
    assert read_skill(skill.path).route is None
    assert route_states.GENERAL_TEXT.is_file()


def _foreign(manifest: Any) -> Any:
    return replace(manifest, backbone="f" * 64)
