"""The whole path on toy models: train, learn, export, load, switch, answer. Torch and runtime agree."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lime_edge import Runtime, read_skill
from lime_edge.contract.routing import Routing
from lime_edge.evaluation.examples import Row
from lime_edge.method.config import ATTENTION, LimeConfig
from lime_edge.training import checkpoint
from lime_edge.training.export_checkpoint import export_checkpoint
from lime_edge.training.general_skill import general_skill
from lime_edge.training.learn_skill import Recipe, learn, prepare
from lime_edge.training.plan import TrainingPlan
from lime_edge.training.predictor import Predictor, Prompt
from lime_edge.training.train_adapter import train
from lime_edge.training.trainer import parameter_groups
from tests.support.runtime_models import Plain
from tests.support.tiny import ARCHITECTURES
from tests.support.tiny_training import backbone, backbone_dir, ids, logits, save, scratch, tasks, tokenizer, wrapped

PLAN = TrainingPlan(steps=3, batch=4, vector_rate=0.1, shared_rate=1e-2)
QUESTIONS = ("which 7", "Hello, é中😀 is this another question?", "first 3")


def torch_answers(directory: Path, file: Path | None) -> list[list[int]]:
    """Greedy tokens of the torch model with the skill in `file`; None means the base."""
    if file is None:
        predictor = Predictor(backbone().eval(), tokenizer())
    else:
        skill = read_skill(file)
        manifest = skill.manifest
        model, _, _ = prepare(directory, Recipe("any", experts=manifest.experts), torch.float32)
        checkpoint.set_vectors(model, skill.tensors)
        predictor = Predictor(model.eval(), tokenizer(), manifest.activation == "response", manifest.interface.system)
    return predictor.generate([prompt(predictor, question) for question in QUESTIONS], 10)


def prompt(predictor: Predictor, text: str) -> Prompt:
    return predictor.prompt(Row(({"role": "user", "content": text},), "any"))


def runtime_answers(runtime: Runtime, skill: str | None) -> list[list[int]]:
    """Greedy tokens of the runtime, without the end-of-turn token; messages, so that no choices constrain them."""
    runtime.use_skill(skill)
    assert runtime.active_skill == skill
    prompts: list[Any] = [[{"role": "user", "content": question}] for question in QUESTIONS]
    made = [list(one.token_ids) for one in runtime.generate(prompts, max_new_tokens=10)]
    eos = tokenizer().eos_token_id
    return [row[: row.index(eos)] if eos in row else row for row in made]


def test_the_whole_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lime_edge.training.backbone.training_dtype", lambda: torch.float32)
    made, model_dir = tmp_path / "checkpoint", tmp_path / "model"
    config = LimeConfig(r=4, routing=Routing(experts=3, window=2), target_modules=list(ATTENTION))
    train([str(tasks() / "tasks")], str(backbone_dir()), made, config, PLAN)
    recipes = (
        Recipe("plain"),
        Recipe("brief", experts=3, activation="response", system="be brief", dtype="f16"),
    )
    files = [tmp_path / f"{recipe.name}.lime" for recipe in recipes]
    for recipe, file in zip(recipes, files, strict=True):
        learn(tasks() / "skill", made, file, recipe, PLAN)
    export_checkpoint(made, model_dir, "fp32")

    runtime = Runtime.load(model_dir, threads=1)
    for file in (*files, made / "general.lime"):
        runtime.load_skill(file, prove=True)
    answers = {}
    for skill in (None, "plain", "brief"):
        answers[skill] = runtime_answers(runtime, skill)
        assert answers[skill] == torch_answers(made, None if skill is None else tmp_path / f"{skill}.lime"), skill
    assert len({str(tokens) for tokens in answers.values()}) == 3  # base and skills all differ
    assert runtime_answers(runtime, None) == answers[None]


@pytest.fixture(scope="module", params=ARCHITECTURES)
def adapted(request: pytest.FixtureRequest) -> tuple[str, Any, Path, Path]:
    """An architecture, a wrapped model after one training step, its checkpoint, and its general skill."""
    model = wrapped(request.param, jitter=0.0).train()
    tokens = ids(2, 9)
    optimizer = torch.optim.AdamW(parameter_groups(model, TrainingPlan(shared_rate=1e-2, vector_rate=1e-2)))
    model(input_ids=tokens, labels=tokens).loss.backward()
    optimizer.step()
    directory = save(model.eval(), scratch() / f"adapted-{request.param}", request.param)
    skill = general_skill(directory)
    checkpoint.set_vectors(model, read_skill(skill).tensors)  # the rounded values of the package
    return request.param, model, directory, skill


def test_fp32_is_torch(adapted: tuple[str, Any, Path, Path], tmp_path: Path) -> None:
    _, model, directory, skill = adapted
    export_checkpoint(directory, tmp_path / "model", "fp32")
    tokens = ids(1, 80)  # longer than Gemma's sliding window
    for path in (None, skill):
        with nullcontext() if path else model.disable_adapter():
            wanted = logits(model, tokens)[0].numpy()
        found = Plain(tmp_path / "model", path)(tokens[0].tolist())
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-3)
    runtime = Runtime.load(tmp_path / "model", threads=1)
    runtime.load_skill(skill)
    predictor = Predictor(model, tokenizer())
    wanted_ids = predictor.generate([prompt(predictor, question) for question in QUESTIONS], 10)
    assert runtime_answers(runtime, "general") == wanted_ids


def test_int4_runs_and_its_base_is_sane(adapted: tuple[str, Any, Path, Path], tmp_path: Path) -> None:
    _, model, directory, skill = adapted
    export_checkpoint(directory, tmp_path / "model", "int4")
    tokens = ids(1, 20)
    with model.disable_adapter():
        wanted = logits(model, tokens)[0].numpy()
    base = Plain(tmp_path / "model")(tokens[0].tolist())
    changed = Plain(tmp_path / "model", skill)(tokens[0].tolist())
    assert np.isfinite(changed).all()
    assert np.corrcoef(base.ravel(), wanted.ravel())[0, 1] > 0.85
    assert np.abs(changed - base).max() > 0.1
    runtime = Runtime.load(tmp_path / "model", threads=1)
    runtime.load_skill(skill)
    assert runtime.generate("Hello", skill="general", max_new_tokens=3).token_ids
