"""Golden prompts: which rows they come from, their logits, and the model that a manifest names."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from lime_edge.evaluation.examples import Row
from lime_edge.training import backbone, checkpoint
from lime_edge.training.package_parts.golden_prompts import golden_prompts, made_for
from lime_edge.training.predictor import Predictor
from tests.support.tiny_training import backbone_dir, logits, tokenizer, wrapped

ROWS = [Row(({"role": "user", "content": "x" * size},), "yes") for size in (30, 5, 20, 10)]


def last(model: Any, tokens: list[int]) -> torch.Tensor:
    """Logits [V] after a prompt, from one plain forward pass."""
    return logits(model, torch.tensor([tokens]))[0, -1]


def test_the_shortest_prompts_are_answered_with_and_without_the_skill() -> None:
    model = wrapped()
    predictor = Predictor(model, tokenizer())
    golden = golden_prompts(predictor, ROWS, 2)
    prompts = [predictor.prompt(row) for row in (ROWS[1], ROWS[3])]
    assert [entry["prompt_ids"] for entry in golden] == [list(prompt.ids) for prompt in prompts]
    assert [entry["answer_ids"] for entry in golden] == [predictor.generate([prompt], 8)[0] for prompt in prompts]
    for entry in golden:
        skill = last(model, entry["prompt_ids"])
        with model.disable_adapter():
            base = last(model, entry["prompt_ids"])
        assert entry["top_ids"] == skill.topk(8).indices.tolist()
        assert entry["skill_logits"] == pytest.approx(skill[entry["top_ids"]].tolist(), abs=1e-3)
        assert entry["base_logits"] == pytest.approx(base[entry["top_ids"]].tolist(), abs=1e-3)
        assert entry["skill_logits"] != pytest.approx(entry["base_logits"], abs=1e-2)


def test_an_empty_answer_is_the_end_of_turn_token(monkeypatch: pytest.MonkeyPatch) -> None:
    predictor = Predictor(wrapped(), tokenizer())
    monkeypatch.setattr(predictor, "generate", lambda *_: [[]])
    (entry,) = golden_prompts(predictor, ROWS[:1])
    assert entry["answer_ids"] == [tokenizer().eos_token_id]


def test_a_manifest_names_the_model_without_a_local_path() -> None:
    model = wrapped()
    config = checkpoint.tuner(model).lime_config
    names = {str(backbone_dir()): backbone_dir().name, "default": backbone.DEFAULT_NAME, "owner/model": "owner/model"}
    for given, public in names.items():
        config.base_model_name_or_path = given
        made = made_for(model, backbone_dir())
        assert made["backbone_name"] == public
    assert made["backbone"] == backbone.digest(backbone_dir())
    assert made["adapter"] == checkpoint.adapter_digest(model)
    assert made["routing"] == config.routing


def test_a_manifest_of_prompt_tuning_has_one_expert() -> None:
    assert made_for(wrapped(base="prompt"), backbone_dir())["routing"].experts == 1
