"""Learning skills on a checkpoint, from JSONL files to packages, on a tiny model."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lime_edge import Runtime
from lime_edge.errors import ConfigError, DataError
from lime_edge.evaluation.examples import Row, read_rows
from lime_edge.skills.compatibility import LIMITS, check_skill
from lime_edge.skills.interface import AnswerForm
from lime_edge.skills.manifest import Manifest
from lime_edge.skills.package import Skill, read_skill, write_skill
from lime_edge.training import backbone, checkpoint
from lime_edge.training import learn_skill as learning
from lime_edge.training.learn_skill import Recipe, learn, prepare
from lime_edge.training.plan import OPTIMIZERS, TrainingPlan
from lime_edge.training.predictor import Predictor
from tests.support.tiny_training import backbone_dir, tasks, write_rows
from tests.support.train_case import PLAN, dies_after, exported, trained

COUNTS = ("rows", "dropped", "duplicates", "overlap")
pytestmark = pytest.mark.usefixtures("float32")


def learned(folder: Path, plan: TrainingPlan = PLAN, **recipe: Any) -> Skill:
    name = recipe.setdefault("name", "lime")
    return learn(tasks() / "skill", trained()[0], folder / f"{name}.lime", Recipe(**recipe), plan)[0]


def bare(row: Row, manifest: Manifest) -> str:
    """What a user asks for: the rows of the task are "which 7"."""
    assert manifest.made is not None
    assert manifest.interface.prefix == ("which " if manifest.made["instruction"] == "kept" else "")
    return str(row.messages[0]["content"].removeprefix("which "))


@pytest.mark.parametrize(
    "recipe",
    [
        {},
        {"keep_instruction": True},
        {"expert": True},
        {"experts": 3, "expert": False},
        {"experts": 3, "dtype": "f16", "rank_gate": True},
        {"activation": "response", "system": "be brief"},
        {"activation": "response", "experts": 3},
    ],
    ids=str,
)
def test_a_skill_fits_its_export_and_proves_itself(recipe: dict[str, Any], tmp_path: Path) -> None:
    skill = learned(tmp_path, **recipe)
    directory, contract = exported(recipe.get("rank_gate", False))
    manifest = skill.manifest
    assert (manifest.backbone, manifest.adapter) == (contract.backbone_digest, contract.adapter_digest)
    assert manifest.modules == contract.table.digest
    assert manifest.routing == dataclasses.replace(contract.routing, experts=recipe.get("experts", 1))
    assert manifest.activation == recipe.get("activation", "always")
    assert manifest.interface.system == recipe.get("system")
    assert skill.dtype == recipe.get("dtype", "i8").upper()
    assert ("rank" in skill.kinds) == recipe.get("rank_gate", False)
    assert ("expert" in skill.kinds) == recipe.get("expert", manifest.experts > 1)
    assert len(manifest.golden) == 3
    runtime = Runtime.load(directory, threads=1)
    info = runtime.load_skill(skill.path, prove=True)
    rows = read_rows(tasks() / "skill" / "valid.jsonl")
    requests = [bare(row, manifest) for row in rows]
    chosen = [
        runtime.choose(request, row.choices, skill=info.name).label for request, row in zip(requests, rows, strict=True)
    ]
    (metric,) = manifest.metrics
    assert metric["skill"] == pytest.approx(
        np.mean([label == row.answer for label, row in zip(chosen, rows, strict=True)]), abs=1e-4
    )
    assert not list(tmp_path.glob(".*"))
    dtype: Any = skill.dtype.lower()
    again = write_skill(tmp_path / "again.lime", manifest, skill.tensors, dtype, skill.draft)
    assert again.digest == skill.digest  # the measured vectors are those of the package


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_learning_that_was_cut_off_goes_on_as_if_it_had_not_been(
    optimizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = dataclasses.replace(PLAN, steps=8, save_every=3, optimizer=optimizer)
    recipe = Recipe("lime", experts=3)
    given = (tasks() / "skill", trained()[0])
    whole, _ = learn(*given, tmp_path / "whole.lime", recipe, plan)
    with monkeypatch.context() as patch:
        patch.setattr(learning, "Collator", dies_after(7))
        with pytest.raises(KeyboardInterrupt):
            learn(*given, tmp_path / "cut.lime", recipe, plan)
    cut, figures = learn(*given, tmp_path / "cut.lime", recipe, plan, resume=True)
    assert figures["steps"] == 8
    assert cut.digest == whole.digest
    assert not list(tmp_path.glob(".*"))
    with pytest.raises(DataError, match="nothing to resume"):
        learn(*given, tmp_path / "new.lime", recipe, plan, resume=True)


def test_the_plan_says_how_steps_are_taken(tmp_path: Path) -> None:
    plans = {name: dataclasses.replace(PLAN, optimizer=name) for name in OPTIMIZERS}
    digests = {learned(tmp_path / name, plan, metric_rows=0).digest for name, plan in plans.items()}
    assert len(digests) == len(plans)
    assert learning.SKILL_PLAN.optimizer == "signal"  # the default rates were tuned with this optimiser


def test_a_skill_is_better_than_the_base_at_what_it_learned(tmp_path: Path) -> None:
    skill = learned(tmp_path, dataclasses.replace(PLAN, steps=16, vector_rate=0.1))
    (metric,) = skill.manifest.metrics
    assert metric["name"] == "accuracy"
    assert metric["rows"] == 3
    assert (metric["skill"], metric["base"]) == (1.0, 0.0)


def test_learning_changes_nothing_else(tmp_path: Path) -> None:
    first = learned(tmp_path, name="first")
    files = [path for path in [*trained()[0].rglob("*"), *backbone_dir().rglob("*"), first.path] if path.is_file()]
    before = {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    second = learned(tmp_path, name="second", experts=3)
    assert {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in files} == before
    assert second.manifest.adapter == first.manifest.adapter
    assert sorted(path.name for path in tmp_path.iterdir()) == ["first.lime", "second.lime"]


@pytest.mark.parametrize("dtype", ["i8", "f16"])
def test_what_runs_away_is_cut_at_what_a_runtime_takes(dtype: str, tmp_path: Path) -> None:
    skill = learned(tmp_path, dataclasses.replace(PLAN, vector_rate=300.0), dtype=dtype, metric_rows=0)
    bounds = skill.manifest.bounds
    assert all(0.95 * LIMITS[kind] < bound <= LIMITS[kind] for kind, bound in bounds.items())
    check_skill(skill, exported(False)[1])


def test_learned_twice_it_is_the_same(tmp_path: Path) -> None:
    digests = {learned(tmp_path / name, experts=3, rank_gate=True).digest for name in ("one", "two")}
    assert len(digests) == 1


def test_bfloat16_training_gives_a_skill_for_the_same_adapter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backbone, "training_dtype", lambda: torch.bfloat16)
    skill = learned(tmp_path)
    assert skill.manifest.adapter == exported(False)[1].adapter_digest
    Runtime.load(exported(False)[0], threads=1).load_skill(skill.path, prove=True)


def test_the_skill_is_trained_where_it_applies(tmp_path: Path) -> None:
    model, tokens, _ = prepare(trained()[0], Recipe("a", expert=True, activation="response"), torch.float32)
    rows = read_rows(tasks() / "skill" / "train.jsonl")
    predictor = Predictor(model, tokens, response_only=True)
    prompt = predictor.prompt(rows[0])
    for vector in ("lime_expert", "lime_gain", "lime_shift"):
        for layer in checkpoint.tuner(model).layers().values():
            torch.nn.init.constant_(getattr(layer, vector)["default"], 1.0)
    with torch.no_grad():
        found = model(
            input_ids=torch.tensor([prompt.ids]),
            skill_active=torch.arange(len(prompt.ids))[None] >= prompt.response_start,
        ).logits[0]
        with model.disable_adapter():
            base = model(input_ids=torch.tensor([prompt.ids])).logits[0]
    assert torch.equal(found[: prompt.response_start], base[: prompt.response_start])
    assert not torch.equal(found[prompt.response_start], base[prompt.response_start])


def test_only_the_vectors_of_a_skill_are_free() -> None:
    model, _, _ = prepare(trained()[0], Recipe("a", rank_gate=True), torch.float32)
    free = {name.split(".")[-2] for name, p in model.named_parameters() if p.requires_grad}
    assert free == {"lime_expert", "lime_gain", "lime_shift", "lime_rank"}
    model.train()
    assert {name.split(".")[-2] for name, p in model.named_parameters() if p.requires_grad} == free


def test_a_skill_starts_from_the_vectors_trained_with_the_adapter() -> None:
    start = checkpoint.get_vectors(checkpoint.open_checkpoint(trained()[0], torch.float32)[0])
    same_number = checkpoint.get_vectors(prepare(trained()[0], Recipe("a", experts=3), torch.float32)[0])
    one = checkpoint.get_vectors(prepare(trained()[0], Recipe("a", expert=True), torch.float32)[0])
    for name, vector in start.items():
        np.testing.assert_array_equal(same_number[name], vector)
        np.testing.assert_allclose(one[name], vector.mean(0, keepdims=True), rtol=1e-6)


def test_of_some_projections_a_skill_has_the_gain_alone(tmp_path: Path) -> None:
    some = learned(tmp_path, expert=True, gain_only=("q_proj", "k_proj"))
    whole = learned(tmp_path, expert=True, name="whole")
    less = {name for name in whole.tensors if not name.startswith("gain.") and name.endswith((".q_proj", ".k_proj"))}
    assert len(less) == len(whole.tensors) / 3  # two kinds of three on half of the modules
    assert some.tensors.keys() == whole.tensors.keys() - less
    assert some.size < whole.size
    runtime = Runtime.load(exported(False)[0])
    runtime.load_skill(some.path, prove=True)  # reproduces its golden prompts

    recipe = Recipe("a", expert=True, gain_only=("q_proj", "k_proj"))
    model, _, _ = prepare(trained()[0], recipe, torch.float32)
    assert not any(checkpoint.get_vectors(model)[name].any() for name in less)  # neutral
    free = [name for name, p in model.named_parameters() if p.requires_grad]
    assert sum("lime_expert" in name for name in free) * 2 == sum("lime_gain" in name for name in free) > 0
    with pytest.raises(
        ConfigError, match="gain_only has up_proj; expected adapted projections: k_proj, o_proj, q_proj, v_proj"
    ):
        prepare(trained()[0], Recipe("a", gain_only=("up_proj", "q_proj")), torch.float32)


def test_every_fault_of_a_recipe_is_listed_before_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learning, "fit", lambda *_: pytest.fail("it trained"))
    wrong: dict[str, Any] = {
        "name": "No Name",
        "experts": 2,
        "expert": False,
        "rank_gate": True,
        "activation": "sometimes",
        "system": "x" * 100_001,
        "gain_only": "up_proj",
        "dtype": "f32",
        "keep_instruction": "no",
        "draft": 1,
        "answers": AnswerForm("choices", []),
        "max_length": 0,
        "metric_rows": -1,
        "about": {"version": "one", "license": "", "colour": "green"},
    }
    (tmp_path / "file").touch()
    (tmp_path / "folder.lime").mkdir()
    with pytest.raises(ConfigError) as caught:
        learn(tasks() / "skill", trained()[0], tmp_path / "file" / "x.lime", Recipe(**wrong), PLAN)
    said = "\n".join(caught.value.faults)
    for part in (
        "name",
        "2 experts",
        "activation",
        "system",
        "expert is False; a rank gate needs expert vectors",
        "gain_only is the string 'up_proj'",
        "dtype",
        "keep_instruction is 'no'",
        "draft is 1",
        "interface.answers.value",
        "max_length",
        "metric_rows",
        "version",
        "license",
    ):
        assert part in said, part
    assert "about.colour" in said
    assert "nothing can be written" in said
    with pytest.raises(ConfigError, match="is a directory"):
        learn(tasks() / "skill", trained()[0], tmp_path / "folder.lime", Recipe("a"), PLAN)
    with pytest.raises(ConfigError, match="is not a checkpoint"):
        learn(tasks() / "skill", tmp_path, tmp_path / "a.lime", Recipe("a"), PLAN)
    with pytest.raises(ConfigError, match="2 experts"):
        prepare(trained()[0], Recipe("a", experts=2), torch.float32)


def test_a_tenth_is_held_back_where_no_rows_are_given_to_measure_on(tmp_path: Path) -> None:
    file = write_rows(tmp_path / "all.jsonl", [{"prompt": f"p{i}", "answer": "free text"} for i in range(20)])
    skill, _ = learn(file, trained()[0], tmp_path / "a.lime", Recipe("a"), dataclasses.replace(PLAN, steps=1))
    assert [(m["name"], m["rows"]) for m in skill.manifest.metrics] == [("exact match", 2), ("f1", 2)]
    assert len(skill.manifest.golden) == 2
    one = write_rows(tmp_path / "one.jsonl", [{"prompt": "p", "answer": "a"}])
    with pytest.raises(DataError, match="one row"):
        learn(one, trained()[0], tmp_path / "b.lime", Recipe("b"), PLAN)
    unmeasured, figures = learn(one, trained()[0], tmp_path / "b.lime", Recipe("b", metric_rows=0), PLAN)
    assert (unmeasured.manifest.metrics, len(unmeasured.manifest.golden), figures["rows"]) == ([], 1, 1)
    with pytest.raises(DataError, match="cannot be read"):
        learn(tmp_path, trained()[0], tmp_path / "b.lime", Recipe("b"), PLAN)


def test_what_was_left_out_is_counted_and_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"prompt": f"p{number}", "answer": "a"} for number in (1, 2, 3, 4, 5, 5)]
    rows.append({"prompt": "x" * 200, "answer": "a"})
    file = write_rows(tmp_path / "rows.csv.jsonl", rows)
    valid = write_rows(tmp_path / "valid.jsonl", [{"prompt": " P2", "answer": "b"}, {"prompt": "v", "answer": "a"}])
    skill, figures = learn(file, trained()[0], tmp_path / "a.lime", Recipe("a", max_length=100), PLAN, valid)
    assert {name: figures[name] for name in COUNTS} == {"rows": 7, "dropped": 1, "duplicates": 1, "overlap": 1}
    assert skill.manifest.metrics[0]["rows"] == 2
    said = capsys.readouterr().err
    assert "warning: 1 of 6 rows are left out: too many tokens; --max-length 2" in said
    assert f"{file} line 2 = {valid} line 1" in said


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"prompt": ("p", " P ")[n % 2], "answer": "a"} for n in range(30)], "30 rows with the same prompt"),
        ([{"prompt": f"{n}" + "x" * 100, "answer": "a"} for n in range(30)], "27 of 27 rows are longer than 60 tokens"),
        ([{"prompt": "p", "answer": "a"}, {"prompt": "q", "answer": "\ud83d"}], "1 of 2 rows cannot be used"),
    ],
)
def test_data_that_cannot_be_learned_is_refused_before_training(
    rows: list[dict[str, Any]], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(learning, "fit", lambda *_: pytest.fail("it trained"))
    file = tmp_path / "rows.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)), "utf-8")
    with pytest.raises(DataError, match=message):
        learn(file, trained()[0], tmp_path / "a.lime", Recipe("a", max_length=60), PLAN)


def test_rows_that_cannot_be_measured_are_refused_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(learning, "fit", lambda *_: pytest.fail("it trained"))
    wrong = {
        '{"prompt": "\\ud83d", "answer": "a"}': "line 1: 'prompt' holds half a surrogate pair",
        json.dumps(
            {"prompt": "x" * 240, "answer": "a"}
        ): "line 1: [0-9]+ tokens and 96 for the answer; the model has room",
        json.dumps({"prompt": "which 1", "answer": "lime"}): "",
    }
    for line, message in wrong.items():
        valid = tmp_path / "valid.jsonl"
        valid.write_text(line, "utf-8")
        train_file = tasks() / "skill" / "train.jsonl"
        if not message:  # every row to train on is also a row to measure on
            train_file, message = valid, f"no row is left to train on[^$]*{valid} line 1 = {valid} line 1"
        with pytest.raises(DataError, match=message):
            learn(train_file, trained()[0], tmp_path / "a.lime", Recipe("a"), PLAN, valid)


def test_the_package_is_written_once_after_it_was_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = learned(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(learning, "golden_prompts", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            learned(tmp_path, dataclasses.replace(PLAN, save_every=1), about={"version": "2.0.0"})
    assert read_skill(old.path).digest == old.digest
    given = (tasks() / "skill", trained()[0], old.path, Recipe("lime", about={"version": "2.0.0"}))
    new, _ = learn(*given, dataclasses.replace(PLAN, save_every=1), resume=True)  # the training is not lost
    assert new.manifest.version == "2.0.0"
    assert [path.name for path in tmp_path.iterdir()] == ["lime.lime"]
