"""ONNX Runtime GenAI gives the same answers as the runtime, with the native operators and without."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lime_edge.errors import ConfigError, SkillMismatchError
from lime_edge.exporters.genai_config import place_operators
from lime_edge.runtime import Runtime
from lime_edge.runtime.genai import write_adapter
from lime_edge.runtime.native import compiler, operators
from tests.support import cli_models
from tests.support.runtime_models import PROMPTS, exported, runtime, skill

genai = pytest.importorskip("onnxruntime_genai")
COUNT = 12  # tokens of an answer


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiler.compile_operators(tmp_path_factory.mktemp("native"), flags=["-O0"])


@pytest.fixture(scope="module", params=["fp32", "int4"])
def models(request: pytest.FixtureRequest, library: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The same export without the native library and with it."""
    plain = exported(precision=request.param)
    placed = shutil.copytree(plain, tmp_path_factory.mktemp("placed") / request.param)
    place_operators(placed, library)
    return [plain, placed]


def answer(model: Path, ids: list[int], adapter: Path | None = None) -> list[int]:
    """The greedy answer."""
    loaded = genai.Model(str(model))
    settings = genai.GeneratorParams(loaded)
    length = len(ids) + COUNT
    settings.set_search_options(max_length=length, min_length=length, do_sample=False)
    generator = genai.Generator(loaded, settings)
    if adapter is not None:
        adapters = genai.Adapters(loaded)
        adapters.load(str(adapter), "skill")
        generator.set_active_adapter(adapters, "skill")
    generator.append_tokens(np.array(ids, np.int32))
    while not generator.is_done():
        generator.generate_next_token()
    return [int(token) for token in generator.get_sequence(0)][len(ids) :]


def test_base_and_skill_are_the_runtimes(models: list[Path], tmp_path: Path) -> None:
    path = skill(models[0], "legal", activation="always")
    made = runtime(models[0])
    made.load_skill(path)
    adapter = write_adapter(models[0], path, tmp_path / "legal.onnx_adapter")
    ids = list(made._text.tokens(PROMPTS[0], raw=True).ids)
    base, legal = (
        list(made.generate(PROMPTS[0], name, raw=True, max_new_tokens=COUNT).token_ids) for name in (None, "legal")
    )
    assert base != legal
    for model in models:
        assert answer(model, ids) == base
        assert answer(model, ids, adapter) == legal


def test_the_model_is_the_same_with_the_library(models: list[Path], library: Path) -> None:
    plain, placed = ({path.name: path.read_bytes() for path in model.iterdir()} for model in models)
    assert placed.pop(library.name) == library.read_bytes()
    before, after = (json.loads(files.pop("genai_config.json")) for files in (plain, placed))
    assert after["model"]["decoder"]["session_options"].pop("custom_ops_library") == library.name
    assert before == after
    assert plain == placed


def test_genai_loads_what_the_config_names(models: list[Path], library: Path, tmp_path: Path) -> None:
    """Otherwise the functions in the graph could have produced all of the above."""
    broken = shutil.copytree(models[1], tmp_path / "broken")
    (broken / library.name).write_bytes(b"no library")
    with pytest.raises(RuntimeError, match=library.name):
        genai.Model(str(broken))


def test_the_runtime_takes_no_part_in_it(models: list[Path], library: Path) -> None:
    found = Runtime.load(models[1], threads=1, verify=True).operators
    assert found.library != models[1] / library.name


def test_skills_that_genai_would_get_wrong(tmp_path: Path) -> None:
    output, model, windows = tmp_path / "x.onnx_adapter", exported(), exported(window=2)
    with pytest.raises(ConfigError, match="its activation is 'response'"):
        write_adapter(model, skill(model, "later"), output)
    with pytest.raises(ConfigError, match="windows of 2 tokens"):
        write_adapter(windows, skill(windows, "wide", activation="always"), output)
    with pytest.raises(SkillMismatchError):
        write_adapter(model, skill(model, "other", activation="always", adapter="c" * 64), output)
    assert not output.exists()


def test_the_command(library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command: Any = ("export", cli_models.trained()[0], "-o", tmp_path / "out", "--genai-operators")
    monkeypatch.setattr(operators, "FOLDER", tmp_path)
    assert "were not built at install" in cli_models.lime(*command).stderr
    assert not (tmp_path / "out").exists()
    monkeypatch.setattr(operators, "FOLDER", library.parent)
    cli_models.facts(*command, "--precision", "fp32")
    assert (tmp_path / "out" / library.name).read_bytes() == library.read_bytes()
    config = json.loads((tmp_path / "out" / "genai_config.json").read_text("utf-8"))
    assert config["model"]["decoder"]["session_options"]["custom_ops_library"] == library.name
    assert library.name not in (tmp_path / "out" / "lime.json").read_text("utf-8")
