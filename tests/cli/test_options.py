"""Options that commands share, and option defaults, which must equal the library's."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import click
import pytest
from PIL import Image

from lime_edge.cli.learn import learn
from lime_edge.cli.options import name_list, path_type, place_to_write, with_pictures
from lime_edge.cli.train import train
from lime_edge.contract.routing import Routing
from lime_edge.method.config import LimeConfig
from lime_edge.runtime import Runtime
from lime_edge.training.learn_skill import SKILL_PLAN, Recipe
from lime_edge.training.plan import TrainingPlan
from tests.runtime.vision.vision_case import picture, seeing
from tests.support.cli_models import fails, lime
from tests.support.runtime_models import exported


def test_defaults_are_the_librarys() -> None:
    here = train.make_context("train", ["data", "-m", "model", "-o", "output"]).params
    plan, routing, config = TrainingPlan(), Routing(), LimeConfig()
    for field in dataclasses.fields(TrainingPlan):
        if field.name in here:
            assert here[field.name] == getattr(plan, field.name), field.name
    assert [here[name] for name in ("experts", "mode", "window")] == [routing.experts, routing.mode, routing.window]
    assert here["targets"].split(",") == config.target_modules
    assert (here["rank"], 2 * here["rank"]) == (config.r, config.alpha)
    there = learn.make_context("learn", ["data", "-c", "checkpoint", "--name", "x"]).params
    recipe = Recipe("x")
    for field in dataclasses.fields(Recipe):
        if field.name != "about":
            assert there[field.name] == getattr(recipe, field.name), field.name
    assert all(there[name] == getattr(SKILL_PLAN, name) for name in ("steps", "batch", "vector_rate", "seed"))
    rates = SKILL_PLAN.vector_scales
    said = (
        f"times {rates['expert']:g} for expert vectors, {rates['gain']:g} for gains and {rates['shift']:g} for shifts"
    )
    assert said in " ".join(learn.get_help(click.Context(learn)).split())


def test_json_never_overwrites_what_it_is_about(skill: Path, model: Path, tmp_path: Path) -> None:
    assert "does not end in .json" in fails("list", model, "--json", skill, code=2)
    assert "cannot be written" in lime("list", model, "--json", tmp_path / "no" / "facts.json").stderr


def test_a_file_to_write_needs_an_existing_folder(tmp_path: Path) -> None:
    context, option = click.Context(learn), click.Option(["--html"])
    assert place_to_write(context, option, tmp_path / "page.html") == tmp_path / "page.html"
    assert place_to_write(context, option, None) is None
    (tmp_path / "file").touch()
    assert place_to_write(context, option, tmp_path / "file") == tmp_path / "file"
    for place in (tmp_path, tmp_path / "none" / "a.html", tmp_path / "file" / "a.html", tmp_path / ("n" * 300) / "a"):
        with pytest.raises(click.BadParameter, match="cannot be written"):
            place_to_write(context, option, place)


def test_paths_that_no_file_can_have_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert path_type().convert(str(tmp_path / "none"), None, None) == tmp_path / "none"
    (tmp_path / "loop").symlink_to("loop")
    for value, said in (("n" * 300, "File name too long"), ("", "an empty text"), (tmp_path / "loop", "Too many")):
        with pytest.raises(click.BadParameter, match=said):
            path_type().convert(str(value), None, None)

    def locked(path: Any) -> Any:
        if str(path).endswith("."):  # tests may run as root, who may enter every folder
            raise PermissionError(13, "Permission denied")
        return os.lstat(path)

    monkeypatch.setattr("lime_edge.cli.options.os.stat", locked)
    with pytest.raises(click.BadParameter, match="is not a usable path: Permission denied"):
        path_type().convert(str(tmp_path), None, None)


def test_lists_of_names() -> None:
    assert name_list(" up_proj, gate_proj,,") == ("up_proj", "gate_proj")
    assert name_list("") == ()


@pytest.fixture
def leaf(tmp_path: Path) -> Path:
    path = tmp_path / "leaf.png"
    Image.fromarray(picture(1)).save(path)
    return path


def test_a_prompt_with_pictures_is_a_list_of_parts() -> None:
    assert with_pictures("x", [], []) == "x"
    assert with_pictures("x", [Path("a")], [Path("b")]) == [
        {"type": "image", "path": "a"},
        {"type": "video", "path": "b"},
        {"type": "text", "text": "x"},
    ]


def test_run_shows_pictures(leaf: Path) -> None:
    asked: Any = [{"type": "image", "path": str(leaf)}, {"type": "text", "text": "what is this"}]
    expected = Runtime.load(seeing(), threads=1).generate(asked, max_new_tokens=6).text
    found = lime("run", seeing(), "what is this", "--image", leaf, "--max-new-tokens", "6")
    assert found.stdout == f"{expected}\n"


def test_run_says_why_a_picture_cannot_be_shown(leaf: Path, tmp_path: Path) -> None:
    assert "this model reads text alone" in fails("run", exported(), "x", "--image", leaf)
    assert "No such file" in fails("run", seeing(), "x", "--image", tmp_path / "none.png")
    assert "raw=True takes plain text" in fails("run", seeing(), "x", "--raw", "--image", leaf)


def test_chat_shows_a_picture_with_the_next_line(leaf: Path) -> None:
    asked = [{"type": "image", "path": str(leaf)}, {"type": "text", "text": "what is this"}]
    expected = Runtime.load(seeing(), threads=1).generate([{"role": "user", "content": asked}], max_new_tokens=6).text
    lines = [f"/image {leaf}", "what is this", "/image none.png", f"/image {leaf}", "/clear", "no", "/quit"]
    said = lime("chat", seeing(), "--max-new-tokens", "6", stdin="\n".join(lines) + "\n").stdout
    assert "the next line is asked about leaf.png" in said
    assert "none.png is not a file; expected /image FILE" in said
    assert f"> {expected}\n" in said
    plain = Runtime.load(seeing(), threads=1).generate([{"role": "user", "content": "no"}], max_new_tokens=6).text
    assert f"> {plain}\n" in said  # /clear forgets what would have been shown, too
