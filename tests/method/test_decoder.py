"""Adapters belong into the language model: what is selected in models of every family."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForImageTextToText

from lime_edge.method.config import ATTENTION, LimeConfig
from lime_edge.method.decoder import allowed, decoder_name, has_towers, in_tower
from lime_edge.training import checkpoint
from tests.support.tiny_training import EXPERTS, backbone
from tests.support.vision.tiny_vision import FAMILIES, tiny_vision_model

TEXT_MODELS = ("smolvlm", "idefics3")  # the others have a language_model


def loaded(family: str, tmp_path: Path) -> Any:
    return AutoModelForImageTextToText.from_pretrained(
        tiny_vision_model(family, tmp_path / family), dtype=torch.float32, local_files_only=True
    )


def wrapped(model: Any, **settings: Any) -> Any:
    return checkpoint.tuner(checkpoint.wrap(model, LimeConfig(r=2, routing=EXPERTS, **settings)))


@pytest.mark.parametrize("family", FAMILIES)
def test_names_select_modules_of_the_language_model_alone(family: str, tmp_path: Path) -> None:
    model = loaded(family, tmp_path)
    before = {name for name, _ in model.named_modules() if name.endswith((".q_proj", ".o_proj", ".up_proj"))}
    names = list(wrapped(model, target_modules=["q_proj", "o_proj", "up_proj"]).layers())
    decoder = "model.text_model" if family in TEXT_MODELS else "model.language_model"
    assert decoder_name(model) == decoder
    assert sorted(names) == sorted(name for name in before if name.startswith(decoder))
    assert names[0] == f"{decoder}.layers.0.self_attn.q_proj"


def test_a_regular_expression_does_not_reach_into_a_tower(tmp_path: Path) -> None:
    names = wrapped(loaded("llava_clip", tmp_path), target_modules=r".*\.(q_proj|v_proj)").layers()
    assert names
    assert all(name.startswith("model.language_model.") for name in names)


def test_named_towers_have_slots_of_their_own_after_the_language_model(tmp_path: Path) -> None:
    model = loaded("llava_clip", tmp_path)
    tuner = wrapped(model, target_modules=["q_proj"], towers=["model.vision_tower"])
    names = list(tuner.layers())
    outside = [in_tower(name, decoder_name(model)) for name in names]
    assert sorted(outside) == outside
    assert sum(outside) == 3
    table = tuner.table()
    assert [module.name for module in table.modules] == names
    assert len({module.name for module in table.modules}) == len(names)


def test_a_language_model_has_no_towers() -> None:
    model = backbone()
    assert not has_towers(model)
    assert decoder_name(model) == ""
    assert set(ATTENTION) <= {name.rpartition(".")[2] for name, _ in model.named_modules()}
    assert allowed("model.layers.0.self_attn.q_proj", "", ())


def test_the_beginning_of_a_name_is_a_whole_part_of_it() -> None:
    assert not allowed("model.language_model2.q_proj", "model.language_model", ())
    assert allowed("model.tower.q_proj", "model.language_model", ("model.tower",))
