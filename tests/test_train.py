"""Training a checkpoint and learning skills on it, from files to packages, on a tiny model."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from lime_edge import Runtime, backbone, checkpoint, read_skill
from lime_edge import learn as learning
from lime_edge import train as training
from lime_edge.contract import ModelContract, Routing
from lime_edge.data import Collator
from lime_edge.errors import ConfigError, DataError, LimeError
from lime_edge.exporting import export_checkpoint
from lime_edge.general import general_skill
from lime_edge.learn import Recipe, learn, prepare
from lime_edge.package import LIMITS, Skill, check_skill, write_skill
from lime_edge.peft_config import ATTENTION, LimeConfig
from lime_edge.predict import Predictor
from lime_edge.rows import read_rows
from lime_edge.train import train
from lime_edge.training import Plan

from .tiny_training import backbone_dir, save, scratch, tasks, wrapped, write_rows

ROUTING = Routing(experts=3, window=2)
PLAN = Plan(steps=3, batch=4, vector_rate=3e-2, shared_rate=1e-2, save_every=100)


@pytest.fixture(autouse=True)
def float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same numbers on every machine, whether or not it multiplies bfloat16."""
    monkeypatch.setattr(backbone, "training_dtype", lambda: torch.float32)


def run(output: Path, plan: Plan = PLAN, resume: bool = False, valid: bool = False, **config: Any) -> dict[str, float]:
    settings: dict[str, Any] = {"r": 4, "routing": ROUTING, "target_modules": list(ATTENTION), **config}
    named = [tasks() / "tasks" / task for task in ("first", "second")]
    given = [str(folder if valid else folder / "train.jsonl") for folder in named]
    return train(given, str(backbone_dir()), output, LimeConfig(**settings), plan, resume=resume)


@cache
def trained() -> tuple[Path, dict[str, float]]:
    output = scratch() / "checkpoint"
    return output, run(output, dataclasses.replace(PLAN, steps=20, save_every=10), valid=True)


@cache
def exported(rank_gate: bool) -> tuple[Path, ModelContract]:
    output = scratch() / f"model-{rank_gate}"
    return output, export_checkpoint(trained()[0], output, "fp32", rank_gate)


def learned(folder: Path, plan: Plan = PLAN, **recipe: Any) -> Skill:
    name = recipe.setdefault("name", "lime")
    return learn(tasks() / "skill", trained()[0], folder / f"{name}.lime", Recipe(**recipe), plan)[0]


def adapter(folder: Path) -> dict[str, Any]:
    return load_file(folder / "adapter_model.safetensors")


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


# -- train -----------------------------------------------------------------------------------------


def test_training_learns_and_says_what_it_did(tmp_path: Path) -> None:
    output, figures = trained()
    before = run(tmp_path / "short", dataclasses.replace(PLAN, steps=1), valid=True)
    assert figures["eval_loss"] < 0.6 * before["eval_loss"]
    assert figures.keys() == {"train_loss", "eval_loss", "steps", "tokens_per_second", "dropped"}
    assert figures["steps"] == 20
    assert figures["tokens_per_second"] > 0
    config = checkpoint.read_config(output)
    assert config.backbone_digest == backbone.digest(backbone_dir())
    assert config.base_model_name_or_path == str(backbone_dir())
    assert config.routing == ROUTING


def test_a_run_that_was_cut_off_goes_on_as_if_it_had_not_been(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = dataclasses.replace(PLAN, steps=8, save_every=6)  # five steps are an epoch
    run(tmp_path / "whole", plan, balance_every=4)
    with monkeypatch.context() as patch:
        patch.setattr(training, "Collator", _dies_after(7))
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "cut", plan, balance_every=4)
    assert not (tmp_path / "cut" / "adapter_model.safetensors").exists()
    for step, text in (("7", ""), ("8", '{"global_step": ')):  # as if it had been cut off while saving
        (tmp_path / "cut" / "run" / f"checkpoint-{step}").mkdir()
        (tmp_path / "cut" / "run" / f"checkpoint-{step}" / "trainer_state.json").write_text(text)
    figures = run(tmp_path / "cut", plan, resume=True, balance_every=4)
    assert figures["steps"] == 8
    assert same(adapter(tmp_path / "cut"), adapter(tmp_path / "whole"))


def _dies_after(batches: int) -> type[Collator]:
    class Dies(Collator):
        made = 0

        def __call__(self, items: Sequence[dict[str, Any]]) -> dict[str, Any]:
            Dies.made += torch.is_grad_enabled()
            if Dies.made > batches:
                raise KeyboardInterrupt
            return super().__call__(items)

    return Dies


def test_the_same_seed_gives_the_same_adapter_and_another_another(tmp_path: Path) -> None:
    plan = dataclasses.replace(PLAN, steps=1)
    for name, seed in (("one", 0), ("two", 0), ("three", 1)):
        torch.manual_seed(hash(name) % 1000)
        run(tmp_path / name, dataclasses.replace(plan, seed=seed))
    assert same(adapter(tmp_path / "one"), adapter(tmp_path / "two"))
    assert not same(adapter(tmp_path / "one"), adapter(tmp_path / "three"))


def test_minutes_end_a_run_which_can_be_resumed(tmp_path: Path) -> None:
    figures = run(tmp_path / "out", dataclasses.replace(PLAN, minutes=1e-6))
    assert figures["steps"] == 1
    assert (tmp_path / "out" / "run" / "checkpoint-1").is_dir()
    assert run(tmp_path / "out", dataclasses.replace(PLAN, steps=2), resume=True)["steps"] == 2


def test_lines_where_there_is_no_terminal(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lime_edge.training._LINE_EVERY", 5)
    plan = dataclasses.replace(PLAN, steps=6, batch=1, save_every=5)
    figures = run(tmp_path / "out", plan, valid=True)
    lines = [line.split(": ") for line in capfd.readouterr().err.splitlines() if line.startswith("step ")]
    # each step is evaluated once, the last one too
    assert [step for step, _ in lines] == ["step 5/6", "step 5", "step 6", "step 6/6"]
    assert re.fullmatch(r"loss [\d.]+, \d+ tokens/s", lines[0][1])
    assert lines[2][1] == f"validation loss {figures['eval_loss']:.4f}"


def test_long_rows_are_dropped_and_counted(tmp_path: Path) -> None:
    file = write_rows(tmp_path / "rows.jsonl", [{"prompt": "x" * n, "answer": "y"} for n in (1, 2, 3, 400)])
    figures = train([str(file)], str(backbone_dir()), tmp_path / "out", LimeConfig(routing=ROUTING), PLAN, 100)
    assert figures["dropped"] == 1
    assert "eval_loss" not in figures


def test_what_cannot_be_trained_is_refused_before_it_begins(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(ConfigError, match="not empty"):
        run(tmp_path / "full")
    with pytest.raises(ConfigError, match="nothing can be written"):
        run(tmp_path / "full" / "file")
    with pytest.raises(DataError, match="nothing to resume"):
        run(tmp_path / "new", resume=True)
    with pytest.raises(ConfigError, match="max_length is 0"):
        train([], str(backbone_dir()), tmp_path / "new", LimeConfig(), PLAN, 0)
    with pytest.raises(DataError, match=r"a\.jsonl[^$]*b\.jsonl"):
        train(["a.jsonl", "b.jsonl"], str(backbone_dir()), tmp_path / "new2", LimeConfig(), PLAN)


def test_every_fault_of_a_plan_is_listed() -> None:
    wrong: dict[str, Any] = {
        "steps": 0,
        "batch": 1.5,
        "save_every": True,
        "seed": -1,
        "vector_rate": -1e-3,
        "shared_rate": float("nan"),
        "weight_decay": "no",
        "warmup": 1.5,
        "vector_scales": {"gain": -1.0, "gian": 2.0},
        "minutes": 0,
    }
    with pytest.raises(ConfigError) as caught:
        Plan(**wrong)
    assert list(dict.fromkeys(fault.split()[0] for fault in caught.value.faults)) == list(wrong)
    assert "vector_scales has 'gian'; expected expert, gain, shift, rank, shared, gate" in caught.value.faults


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


# -- learn -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "recipe",
    [
        {},
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
    assert manifest.prompt["system"] == recipe.get("system")
    assert skill.dtype == recipe.get("dtype", "i8").upper()
    assert ("rank" in skill.kinds) == recipe.get("rank_gate", False)
    assert len(manifest.golden) == 3
    runtime = Runtime.load(directory, threads=1)
    info = runtime.load_skill(skill.path, prove=True)
    rows = read_rows(tasks() / "skill" / "valid.jsonl")
    chosen = [runtime.choose([*row.messages], row.choices, skill=info.name).label for row in rows]
    (metric,) = manifest.metrics
    assert metric["skill"] == pytest.approx(
        np.mean([label == row.answer for label, row in zip(chosen, rows, strict=True)]), abs=1e-4
    )
    assert not list(tmp_path.glob(".*"))
    again = write_skill(tmp_path / "again.lime", manifest, skill.tensors, skill.dtype.lower())  # type: ignore[arg-type]
    assert again.digest == skill.digest  # what was measured is what ships


def test_learning_that_was_cut_off_goes_on_as_if_it_had_not_been(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = dataclasses.replace(PLAN, steps=8, save_every=3)
    recipe = Recipe("lime", experts=3)
    given = (tasks() / "skill", trained()[0])
    whole, _ = learn(*given, tmp_path / "whole.lime", recipe, plan)
    with monkeypatch.context() as patch:
        patch.setattr(learning, "Collator", _dies_after(7))
        with pytest.raises(KeyboardInterrupt):
            learn(*given, tmp_path / "cut.lime", recipe, plan)
    cut, figures = learn(*given, tmp_path / "cut.lime", recipe, plan, resume=True)
    assert figures["steps"] == 8
    assert cut.digest == whole.digest
    assert not list(tmp_path.glob(".*"))
    with pytest.raises(DataError, match="nothing to resume"):
        learn(*given, tmp_path / "new.lime", recipe, plan, resume=True)


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
    model, tokens, _ = prepare(trained()[0], Recipe("a", activation="response"), torch.float32)
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
    one = checkpoint.get_vectors(prepare(trained()[0], Recipe("a"), torch.float32)[0])
    for name, vector in start.items():
        np.testing.assert_array_equal(same_number[name], vector)
        np.testing.assert_allclose(one[name], vector.mean(0, keepdims=True), rtol=1e-6)


def test_of_some_projections_a_skill_has_the_gain_alone(tmp_path: Path) -> None:
    some, whole = learned(tmp_path, gain_only=("q_proj", "k_proj")), learned(tmp_path, name="whole")
    less = {name for name in whole.tensors if not name.startswith("gain.") and name.endswith((".q_proj", ".k_proj"))}
    assert len(less) == len(whole.tensors) / 3  # two kinds of three on half of the modules
    assert some.tensors.keys() == whole.tensors.keys() - less
    assert some.size < whole.size
    runtime = Runtime.load(exported(False)[0])
    runtime.load_skill(some.path, prove=True)  # its golden prompts come out

    recipe = Recipe("a", gain_only=("q_proj", "k_proj"))
    model, _, _ = prepare(trained()[0], recipe, torch.float32)
    assert not any(checkpoint.get_vectors(model)[name].any() for name in less)  # neutral
    free = [name for name, p in model.named_parameters() if p.requires_grad]
    assert sum("lime_expert" in name for name in free) * 2 == sum("lime_gain" in name for name in free) > 0
    with pytest.raises(ConfigError, match="no gain of up_proj to learn; adapted are k_proj, o_proj, q_proj, v_proj"):
        prepare(trained()[0], Recipe("a", gain_only=("up_proj", "q_proj")), torch.float32)


def test_inside_of_feed_forward_blocks_the_gain_is_all_there_is(tmp_path: Path) -> None:
    run(tmp_path / "checkpoint", target_modules=["o_proj", "up_proj"])
    skill, _ = learn(tasks() / "skill", tmp_path / "checkpoint", tmp_path / "one.lime", Recipe("one"), PLAN)
    found = {(name.split(".")[0], name.rpartition(".")[2]) for name in skill.tensors}
    export_checkpoint(tmp_path / "checkpoint", tmp_path / "model", "fp32")
    Runtime.load(tmp_path / "model").load_skill(skill.path, prove=True)
    assert found == {("gain", "up_proj"), *((kind, "o_proj") for kind in ("expert", "gain", "shift"))}


def test_every_fault_of_a_recipe_is_listed_before_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learning, "fit", lambda *_: pytest.fail("it trained"))
    wrong: dict[str, Any] = {
        "name": "No Name",
        "experts": 2,
        "activation": "sometimes",
        "system": "x" * 100_001,
        "gain_only": "up_proj",
        "dtype": "f32",
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
        "gain_only is the text 'up_proj'",
        "dtype",
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
    with pytest.raises(DataError, match="cannot be read"):
        learn(tmp_path, trained()[0], tmp_path / "b.lime", Recipe("b"), PLAN)


def test_what_refuses_is_a_lime_error() -> None:
    with pytest.raises(LimeError):
        checkpoint.open_checkpoint(Path("nowhere"), torch.float32)
