"""A model that is no language model, with skills: against torch, in mixed rows, and with bad input."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lime_edge.errors import ConfigError, ModelError, SkillMismatchError, UnknownSkillError
from lime_edge.runtime import Module
from lime_edge.runtime.types import SkillSpec
from lime_edge.skills.package import read_skill, write_skill
from tests.support.module_case import close, inputs, made, numbers, outputs


@pytest.fixture
def module() -> Module:
    directory, skill, _ = made()
    loaded = Module.load(directory)
    loaded.load_skill(skill)
    return loaded


def expected(given: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Outputs of torch without the skill and with it."""
    model = made()[2]
    with model.disable_adapter():
        base = outputs(model, given)
    return base, outputs(model, given)


def test_outputs_are_those_of_torch(module: Module) -> None:
    for rows in (1, 5):
        given = inputs(rows, seed=rows)
        base, skilled = expected(given)
        for skill, wanted in ((None, base), ("style", skilled)):
            found = module.run(numbers(given), skill)
            assert list(found) == ["noise", "mean"]
            assert all(close(found[name], wanted[name]) for name in wanted)
        assert not close(base["noise"], skilled["noise"])


def test_skills_are_switched_and_mixed(module: Module) -> None:
    given = inputs(3)
    base, skilled = expected(given)
    assert module.active_skill is None
    module.use_skill("style")
    assert close(module.run(numbers(given), outputs=["mean"])["mean"], skilled["mean"])
    with module.disable_skill():
        assert close(module.run(numbers(given))["noise"], base["noise"])
    module.use_skill(None)
    skills: list[SkillSpec] = [None, "style", {"style": 1.0}]
    mixed = module.run(numbers(given), skills)["noise"]
    assert all(close(mixed[row], wanted["noise"][row]) for row, wanted in enumerate((base, skilled, skilled)))
    half = module.run(numbers(given), {"style": 0.5})["noise"]
    assert not close(half, base["noise"])
    assert not close(half, skilled["noise"])


def test_skills_are_loaded_listed_and_unloaded(module: Module) -> None:
    (info,) = module.skills()
    assert (info.name, info.license) == ("style", "CC0-1.0")
    with pytest.raises(ConfigError, match="already loaded"):
        module.load_skill(made()[1])
    assert module.load_skill(made()[1], replace=True).generation > info.generation
    module.load_skill(made()[1], name="other")
    module.unload_skill("style")
    assert [info.name for info in module.skills()] == ["other"]
    with pytest.raises(UnknownSkillError, match="'other'"):
        module.run(numbers(inputs()), "style")


def test_what_goes_in_and_out(module: Module) -> None:
    assert module.inputs == {"picture": (np.float32, ("batch", 4, 4, 4)), "step": (np.float32, ("batch", 4))}
    assert module.outputs == ("noise", "mean")


def test_every_fault_of_a_call_is_named(module: Module) -> None:
    with pytest.raises(ConfigError) as caught:
        module.run({"picture": np.zeros((1, 4, 4)), "steps": [1.0]}, [], ["noise", "colour"])
    for fault in (
        "unknown input 'steps'; known are picture, step",
        "picture is [1, 4, 4]; expected ['batch', 4, 4, 4]",
        "the input step is missing",
        "unknown outputs 'colour'; known are noise, mean",
        "the list of skills is empty",
    ):
        assert fault in str(caught.value)
    cases: tuple[Any, ...] = ("text", None, [object()], np.zeros((1, 4), np.complex64))
    for bad in cases:
        with pytest.raises(ConfigError, match=r"step (holds|is)"):
            module.run({"picture": np.zeros((1, 4, 4, 4)), "step": bad})
    with pytest.raises(ConfigError, match="with 2 skills, expected as many rows"):
        module.run(numbers(inputs(3)), ["style", None])
    with pytest.raises(ConfigError, match="inputs are list"):
        module.run([1, 2])  # type: ignore[arg-type]


def test_skills_that_do_not_fit_are_refused(module: Module, tmp_path: Path) -> None:
    skill = read_skill(made()[1])
    other = dataclasses.replace(skill.manifest, backbone="f" * 64)
    write_skill(tmp_path / "other.lime", other, dict(skill.tensors))
    with pytest.raises(SkillMismatchError, match="made for backbone"):
        module.load_skill(tmp_path / "other.lime", name="other")
    late = dataclasses.replace(skill.manifest, activation="response")
    write_skill(tmp_path / "late.lime", late, dict(skill.tensors))
    with pytest.raises(SkillMismatchError, match="applies to answers alone"):
        module.load_skill(tmp_path / "late.lime", name="late")
    assert [info.name for info in module.skills()] == ["style"]


def test_damaged_directories(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"lime\.json cannot be read"):
        Module.load(tmp_path)
    copy = shutil.copytree(made()[0], tmp_path / "copy")
    graph = (copy / "model.onnx").read_bytes()
    (copy / "model.onnx").write_bytes(graph[:-1])
    with pytest.raises(ModelError, match="is truncated"):
        Module.load(copy)
    (copy / "model.onnx").write_bytes(graph)
    document = json.loads((copy / "lime.json").read_text("utf-8"))
    document["modules"] = document["modules"][:-1]
    (copy / "lime.json").write_text(json.dumps(document), "utf-8")
    with pytest.raises(ModelError, match="contradicts itself"):
        Module.load(copy)


def test_it_runs_without_torch() -> None:
    directory, skill, _ = made()
    code = (
        "import sys, numpy as np; from lime_edge.runtime import Module;"
        "m = Module.load(sys.argv[1]); m.load_skill(sys.argv[2]);"
        "m.run({'picture': np.zeros((2, 4, 4, 4)), 'step': np.zeros((2, 4))}, 'style');"
        "assert not {'torch', 'transformers', 'onnx', 'peft'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, directory, skill], check=True)
