"""Pictures of rows for every family: the logits of transformers, features computed once, training and learning."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from lime_edge.contract.content_parts import media_parts
from lime_edge.contract.routing import Routing
from lime_edge.errors import ConfigError, DataError
from lime_edge.evaluation.examples import Row, read_rows
from lime_edge.method.config import LimeConfig
from lime_edge.runtime.vision.image_file import image_source
from lime_edge.runtime.vision.prepare import prepare_image
from lime_edge.skills.package import read_skill
from lime_edge.training import backbone, checkpoint, train_adapter
from lime_edge.training.dataset import Collator, Examples, chat_of, encode_with_pictures
from lime_edge.training.learn_skill import Recipe, learn
from lime_edge.training.pictures.frozen_tower import FrozenTower
from lime_edge.training.pictures.picture_features import PictureFeatures
from lime_edge.training.predictor import Predictor
from lime_edge.training.train_adapter import train
from tests.support.tiny_training import tokenizer as text_tokenizer
from tests.support.train_case import dies_after
from tests.support.vision.pictures import png
from tests.support.vision.tiny_vision import FAMILIES
from tests.support.vision.vision_training import PLAN, checkpoint_of, model_dir, pictures

pytestmark = pytest.mark.usefixtures("float32", "own_cache")


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LIME_EDGE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def content(*seeds: int, text: str = "which?") -> list[dict[str, Any]]:
    return [*({"type": "image", "data": png(seed, 40)} for seed in seeds), {"type": "text", "text": text}]


def messages(*seeds: int, text: str = "which?") -> list[dict[str, Any]]:
    return [{"role": "user", "content": content(*seeds, text=text)}]


def given(encoder: PictureFeatures, seeds: tuple[int, ...], ids: torch.Tensor) -> dict[str, Any]:
    """The pictures as arguments of the transformers model."""

    made = [prepare_image(image_source(part).pixels(), encoder.contract) for part in media_parts(messages(*seeds))]
    pixels = torch.from_numpy(np.concatenate([one.arrays["pixel_values"] for one in made]))
    family = encoder.contract.family
    if family == "smolvlm":
        return {"pixel_values": pixels[None]}
    if not family.startswith("qwen"):
        return {"pixel_values": pixels}
    merge = encoder.contract.patches.merge if encoder.contract.patches else 1
    grids = [(one.grid[0], one.grid[1] * merge, one.grid[2] * merge) for one in made if one.grid]
    kinds = (ids == encoder.contract.image_token_id).long()
    return {"pixel_values": pixels, "image_grid_thw": torch.tensor(grids), "mm_token_type_ids": kinds}


@pytest.mark.parametrize("family", ["llava_clip", "llava_siglip", "smolvlm", "idefics3", "qwen2_vl", "qwen2_5_vl"])
def test_features_give_the_logits_of_transformers(family: str) -> None:
    model, tokenizer = backbone.load(model_dir(family), torch.float32)
    predictor = Predictor(model, tokenizer)
    row = Row(tuple(messages(1, 2)), "lime")
    prompt = predictor.prompt(row)
    ids = torch.tensor([prompt.ids])
    with torch.no_grad():
        wanted = model(input_ids=ids, **given(tokenizer.pictures, (1, 2), ids)).logits[:, -1]
        found, cache, mask = predictor.prefill([prompt])
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-3)
    text = predictor.prompt(Row(({"role": "user", "content": "which?"},), "lime"))
    batch, _, _ = predictor.prefill([text, prompt])
    torch.testing.assert_close(batch[1], found[0], atol=1e-4, rtol=1e-3)
    # a step on the cache continues the full forward pass
    step = predictor._step(torch.tensor([[5]]), torch.cat([mask, mask.new_ones(1, 1)], 1), cache)[:, -1]
    longer = torch.cat([ids, torch.tensor([[5]])], 1)
    with torch.no_grad():
        full = model(input_ids=longer, **given(tokenizer.pictures, (1, 2), longer)).logits[:, -1]
    torch.testing.assert_close(step, full, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_checkpoint_and_a_skill_are_trained_on_pictures(family: str, tmp_path: Path) -> None:
    recipe = Recipe(name="citrus", about={"description": "which citrus"})
    skill, figures = learn(pictures(), checkpoint_of(family), tmp_path / "citrus.lime", recipe, PLAN)
    assert figures["steps"] == 2
    assert skill.manifest.interface is not None
    assert skill.manifest.interface.modality == ("text", "image")
    assert skill.manifest.interface.answers.value == ["lime", "lemon"]
    decoder = "model.text_model" if family in ("smolvlm", "idefics3") else "model.language_model"
    modules = {name.partition(".")[2] for name in read_skill(tmp_path / "citrus.lime").tensors}
    assert all(name.startswith(f"{decoder}.layers.") for name in modules)
    assert skill.manifest.golden
    assert np.abs(np.concatenate([v.ravel() for v in skill.tensors.values()])).max() > 0


def test_a_picture_is_computed_once_and_kept_for_the_next_run(monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[int] = []
    run = FrozenTower.run

    def counted(self: FrozenTower, arrays: Any) -> Any:
        runs.append(1)
        return run(self, arrays)

    monkeypatch.setattr(FrozenTower, "run", counted)
    _, tokenizer = backbone.load(model_dir("llava_clip"), torch.float32)
    first = encode_with_pictures(tokenizer, messages(1, 2, 1))
    assert len(runs) == 2
    encode_with_pictures(tokenizer, messages(2, text="other?"))
    assert len(runs) == 2
    _, again = backbone.load(model_dir("llava_clip"), torch.bfloat16)
    second = encode_with_pictures(again, messages(1, 2, 1))
    assert len(runs) == 2
    assert first[2] is not None
    assert second[2] is not None
    assert torch.equal(first[2].features, second[2].features)
    assert first[2].places == second[2].places


def test_another_tower_has_features_of_its_own(tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(model_dir("llava_clip"), other)
    model, tokenizer = backbone.load(model_dir("llava_clip"), torch.float32)
    changed, _ = backbone.load(other, torch.float32)
    with torch.no_grad():
        next(changed.model.multi_modal_projector.parameters()).add_(0.1)
    mine, theirs = PictureFeatures(model, other)._identity(), PictureFeatures(changed, other)._identity()
    assert mine != theirs
    with torch.no_grad():
        next(model.get_decoder().parameters()).add_(0.1)
    assert PictureFeatures(model, other)._identity() == mine
    del tokenizer


def test_rows_of_pictures_and_of_text_share_a_batch() -> None:
    model, tokenizer = backbone.load(model_dir("qwen2_vl"), torch.float32)
    rows = [Row(tuple(messages(3)), "lime"), Row(({"role": "user", "content": "which?"},), "lemon")]
    examples = Examples(tokenizer, rows, 512)
    collate = Collator(0)
    both = collate([examples[0], examples[1]])
    assert both["position_ids"].shape == (3, *both["input_ids"].shape)
    with torch.no_grad():
        wrapped = checkpoint.wrap(model, LimeConfig(r=2, target_modules=["o_proj"])).eval()
        together = wrapped(**both).logits
        for i in range(2):
            alone = wrapped(**collate([examples[i]])).logits
            torch.testing.assert_close(together[i, -1], alone[0, -1], atol=1e-4, rtol=1e-3)
    assert "features" not in collate([examples[1]])


def test_pictures_that_cannot_be_used_are_named_with_their_row() -> None:
    _, tokenizer = backbone.load(model_dir("llava_clip"), torch.float32)
    bad = Row(({"role": "user", "content": [{"type": "image", "data": b"no picture"}]},), "lime")
    with pytest.raises(DataError, match="no picture that can be read"):
        Examples(tokenizer, [bad], 512)
    video = [{"type": "video", "frames": [{"type": "image", "data": png(0)}]}]
    with pytest.raises(ConfigError):
        encode_with_pictures(tokenizer, [{"role": "user", "content": [*video, *video, {"type": "audio"}]}])


def test_a_model_of_text_refuses_pictures_by_row() -> None:
    with pytest.raises(DataError, match=r"train\.jsonl line 1"):
        Examples(text_tokenizer(), read_rows(pictures() / "train.jsonl"), 512)
    assert chat_of(text_tokenizer()).placeholders == {}


def test_an_interrupted_run_on_pictures_ends_with_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = dataclasses.replace(PLAN, steps=4, save_every=2)
    config: dict[str, Any] = {"r": 4, "routing": Routing(experts=3), "target_modules": ["o_proj", "up_proj"]}
    given = ([str(pictures())], str(model_dir("qwen2_vl")))
    train(*given, tmp_path / "whole", LimeConfig(**config), plan)
    with monkeypatch.context() as patch:
        patch.setattr(train_adapter, "Collator", dies_after(3))
        with pytest.raises(KeyboardInterrupt):
            train(*given, tmp_path / "cut", LimeConfig(**config), plan)
    train(*given, tmp_path / "cut", LimeConfig(**config), plan, resume=True)
    whole, cut = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("whole", "cut"))
    assert whole.keys() == cut.keys()
    assert all(np.array_equal(whole[name], cut[name]) for name in whole)


def test_gradient_checkpointing_on_pictures_gives_the_same_adapter(tmp_path: Path) -> None:
    found = []
    for checkpointing in (False, True):
        plan = dataclasses.replace(PLAN, steps=1, gradient_checkpointing=checkpointing)
        config = LimeConfig(r=4, routing=Routing(experts=3, window=2), target_modules=["o_proj", "up_proj"])
        train([str(pictures())], str(model_dir("llava_clip")), tmp_path / str(checkpointing), config, plan)
        found.append(load_file(tmp_path / str(checkpointing) / "adapter_model.safetensors"))
    for name, value in found[0].items():
        np.testing.assert_allclose(found[1][name], value, atol=1e-5, rtol=1e-4)
