"""Every command from end to end on a tiny model, and what it says when something is wrong."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import click
import pytest

import lime_edge
from lime_edge import read_skill
from lime_edge.cli.commands import main
from lime_edge.cli.learn import learn
from lime_edge.cli.train import train
from lime_edge.contract.routing import Routing
from lime_edge.evaluation.examples import Row, read_rows
from lime_edge.evaluation.metrics import score
from lime_edge.method.config import LimeConfig
from lime_edge.reports import doctor
from lime_edge.runtime import Runtime
from lime_edge.training.learn_skill import SKILL_PLAN, Recipe
from lime_edge.training.plan import TrainingPlan
from tests.support.cli_models import TRAIN, backbone, data, exported, facts, learned, lime, trained, write_rows
from tests.support.paths import ROOT
from tests.tools import cli_docs

MAKING, USING = ("train", "learn", "export"), ("inspect", "run", "chat", "eval", "list")
STORING = ("pull", "push", "info", "update", "rollback", "remove", "gc", "card")
TRUST, LAST = ("sign", "verify", "audit"), ("doctor", "demo")
HEAVY = {"torch", "transformers", "peft", "onnxruntime", "onnx", "onnx_ir", "numpy", "rich"}
BASE = ("chat", "demo", "doctor", "evaluate", "installed", "looking", "metrics", "rows", "tables")


@pytest.fixture(scope="module")
def model() -> Path:
    return exported()[0]


@pytest.fixture(scope="module")
def skill() -> Path:
    return learned()[0]


def _fails(*args: str | Path, code: int = 1) -> str:
    result = lime(*args)
    assert result.exit_code == code, result.output
    assert not result.stdout
    return result.stderr


def _python(code: str, *args: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, *map(str, args)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


# -- as a whole ------------------------------------------------------------------------------------


def test_help_needs_nothing_heavy() -> None:
    done = _python(f"import sys, lime_edge.cli; print(sorted(set(sys.modules) & {HEAVY!r}))")
    assert done.stdout.strip() == "[]"


def test_what_runs_models_needs_the_base_install_only() -> None:
    imports = "; ".join(f"import lime_edge.{name}" for name in BASE)
    done = _python(f"import sys; {imports}; print(sorted(set(sys.modules) & {HEAVY!r}))")
    assert json.loads(done.stdout.replace("'", '"')) == ["numpy", "onnxruntime"]


def test_the_page_is_current() -> None:
    assert cli_docs.PAGE.read_text("utf-8") == cli_docs.page(), "python -m tests.tools.cli_docs"


def test_version() -> None:
    assert lime("--version").output == f"lime-edge, version {lime_edge.__version__}\n"


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
    said = f"{rates['expert']:g} times it, gains {rates['gain']:g} times, shifts {rates['shift']:g} times"
    assert said in " ".join(learn.get_help(click.Context(learn)).split())


def test_other_errors_are_not_swallowed(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: Path) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr("lime_edge.reports.describe.describe_path", broken)
    with pytest.raises(RuntimeError, match="a bug"):
        lime("inspect", "anything")


def test_ctrl_c_is_tidy(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("lime_edge.reports.describe.describe_path", interrupted)
    result = lime("inspect", "anything")
    assert (result.exit_code, result.stderr.strip()) == (130, "stopped")


@pytest.mark.parametrize("command", MAKING)
def test_a_missing_extra_says_what_to_install(command: str, tmp_path: Path) -> None:
    arguments: dict[str, list[str | Path]] = {
        "train": ["x.jsonl", "-m", "default", "-o", tmp_path / "o"],
        "learn": ["x.jsonl", "-c", tmp_path, "--name", "x", "-o", tmp_path / "x.lime"],
        "export": [tmp_path, "-o", tmp_path / "o"],
    }
    code = "import sys; sys.modules['torch'] = None; from lime_edge.cli import main; main()"
    done = _python(code, command, *arguments[command])
    assert done.returncode == 1
    extra = "export" if command == "export" else "train"
    assert done.stderr.startswith("Error: ")
    assert f"pip install 'lime-edge[{extra}]'" in done.stderr


# -- making ----------------------------------------------------------------------------------------


def test_train() -> None:
    checkpoint, said = trained()
    assert (checkpoint / "adapter_model.safetensors").is_file()
    assert said["figures"]["steps"] == 2
    assert said["figures"]["dropped"] == 0
    assert set(said["skills"]) == {"general.lime"}
    stderr = _fails("train", data(), "-m", backbone(), "-o", checkpoint)
    assert "--resume" in stderr


def test_train_resumes(tmp_path: Path) -> None:
    shutil.copytree(trained()[0], tmp_path / "checkpoint")
    again = ("train", data(), "-m", backbone(), "-o", tmp_path / "checkpoint", "--steps", "3", *TRAIN)
    assert facts(*again, "--resume")["figures"]["steps"] == 3


def test_train_names_every_missing_file(tmp_path: Path) -> None:
    stderr = _fails("train", "no.jsonl", "nor.jsonl", "-m", backbone(), "-o", tmp_path / "new")
    assert "no.jsonl" in stderr
    assert "nor.jsonl" in stderr


def test_learn() -> None:
    path, said = learned()
    skill = read_skill(path)
    assert said["skill"]["digest"] == skill.digest
    assert said["figures"]["steps"] == 2
    assert skill.manifest.author == "me"
    assert [(metric["name"], metric["rows"]) for metric in skill.manifest.metrics] == [("accuracy", 4)]


def test_learn_checks_its_words_before_it_trains(tmp_path: Path) -> None:
    stderr = _fails("learn", "no.jsonl", "-c", tmp_path, "--name", "My Skill", "--version", "1", "--license", "?")
    assert all(word in stderr for word in ("name is 'My Skill'", "version is '1'", "license is '?'"))


def test_learn_wants_a_checkpoint(tmp_path: Path) -> None:
    stderr = _fails("learn", data(), "-c", tmp_path, "--name", "x", "-o", tmp_path / "x.lime")
    assert "adapter_config.json" in stderr


def test_export(model: Path) -> None:
    said = exported()[1]
    assert (said["what"], said["precision"]) == ("model", "fp32")
    assert "is not empty" in _fails("export", trained()[0], "-o", model)


# -- looking ---------------------------------------------------------------------------------------


def test_inspect(model: Path, skill: Path) -> None:
    assert facts("inspect", skill)["digest"] == read_skill(skill).digest
    assert facts("inspect", trained()[0])["r"] == 2
    found = facts("inspect", model)
    assert found["adapter"]["digest"] == read_skill(skill).manifest.adapter
    assert [entry["name"] for entry in found["skills"]] == ["odd"]
    assert facts("inspect", model / "skills")["skills"] == found["skills"]


def test_inspect_shows_what_it_says_as_json(skill: Path, tmp_path: Path) -> None:
    result = lime("inspect", skill, "--json", tmp_path / "facts.json")
    found = json.loads((tmp_path / "facts.json").read_text("utf-8"))
    assert found["digest"] in result.stdout
    assert "[bold]odd[/bold]" in result.stdout  # a stranger's text is no markup


def test_inspect_refuses(tmp_path: Path) -> None:
    (tmp_path / "broken.lime").write_bytes(b"no skill")
    assert "does not exist" in _fails("inspect", tmp_path / "nothing")
    assert "not a skill package" in _fails("inspect", tmp_path / "broken.lime")
    (tmp_path / "empty").mkdir()
    assert "adapter_config.json" in _fails("inspect", tmp_path / "empty")


def test_json_never_overwrites_what_it_is_about(skill: Path, model: Path, tmp_path: Path) -> None:
    assert "does not end in .json" in _fails("list", model, "--json", skill, code=2)
    assert "cannot be written" in lime("list", model, "--json", tmp_path / "no" / "facts.json").stderr


def test_list_shows_damaged_packages_too(skill: Path, tmp_path: Path) -> None:
    shutil.copy(skill, tmp_path / "good.lime")
    (tmp_path / "bad.lime").write_bytes(b"no skill")
    bad, good = facts("list", tmp_path)["skills"]
    assert (good["name"], good["size"]) == ("odd", skill.stat().st_size)
    assert "not a skill package" in bad["error"]
    assert "cannot be used" in lime("list", tmp_path).stdout
    assert "is not a directory" in _fails("list", tmp_path / "nothing")


def test_doctor(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LIME_EDGE_CACHE", str(tmp_path))
    (tmp_path / "kept").write_bytes(bytes(1000))
    monkeypatch.setitem(doctor.EXTRAS["train"], "not-there", "")
    found = facts("doctor")
    assert found["missing"] == {"train": ["not-there"], "export": ["not-there"], "sign": []}
    assert found["cache"] == {"directory": str(tmp_path), "bytes": 1000}
    assert "CPUExecutionProvider" in found["providers"]
    assert "pip install 'lime-edge[train]'" in lime("doctor").stdout.replace("\n", " ")


def test_doctor_knows_the_extras() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    for extra, modules in doctor.EXTRAS.items():
        named = {line.partition(">")[0] for line in extras[extra] if not line.startswith("lime-edge")}
        assert set(modules) == named


def test_doctor_checks_a_model(model: Path, tmp_path: Path) -> None:
    shutil.copytree(model, tmp_path / "model")
    (tmp_path / "model" / "skills" / "bad.lime").write_bytes(b"no skill")
    verdicts = facts("doctor", tmp_path / "model", "--prove")["model"]["skills"]
    assert verdicts["odd"] is None
    assert "not a skill package" in verdicts["bad"]
    weights = tmp_path / "model" / "model.onnx.data"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    assert "changed or damaged" in _fails("doctor", tmp_path / "model")


# -- using -----------------------------------------------------------------------------------------


def test_run(model: Path, skill: Path) -> None:
    runtime = Runtime.load(model)
    runtime.load_skill(skill)
    base, odd = (runtime.generate("Say 1", name, max_new_tokens=8).text for name in (None, "odd"))
    assert base != odd
    short = ("--max-new-tokens", "8")
    assert lime("run", model, "Say 1", *short).stdout == base + "\n"
    assert lime("run", model, "-", "--skill", "odd", *short, stdin="Say 1").stdout == odd + "\n"
    streamed = lime("run", model, "Say 1", "--skill", skill, "--stream", "--timings", *short)
    assert streamed.stdout == odd + "\n"
    assert "8 written" in streamed.stderr


def test_run_takes_the_settings_of_an_answer(model: Path) -> None:
    varied = ("run", model, "Say 1", "--max-new-tokens", "8", "--temperature", "2", "--top-k", "50", "--seed")
    assert lime(*varied, "1").stdout == lime(*varied, "1").stdout != lime(*varied, "2").stdout
    stderr = _fails("run", model, "Say 1", "--temperature", "99", "--top-p", "7")
    assert "temperature is 99.0" in stderr
    assert "top_p is 7.0" in stderr


def test_run_names_the_skills_there_are(model: Path, tmp_path: Path) -> None:
    assert "it holds 'odd'" in _fails("run", model, "hello", "--skill", "legal")
    assert "there is no file" in _fails("run", model, "hello", "--skill", tmp_path / "legal.lime")
    assert "is not a directory" in _fails("run", tmp_path / "nothing", "hello")


def test_chat(model: Path, skill: Path) -> None:
    runtime = Runtime.load(model)
    runtime.load_skill(skill)
    first = runtime.generate("Say 1", max_new_tokens=6).text
    turns = [{"role": "user", "content": "Say 1"}, {"role": "assistant", "content": first}]
    second = runtime.generate([*turns, {"role": "user", "content": "Say 2"}], "odd", max_new_tokens=6).text
    lines = [
        "Say 1",
        "/skill odd",
        "/skill list",
        "Say 2",
        "/skill none",
        "/clear",
        "Say 1",
        "/what",
        "/skill no",
        "/quit",
    ]
    result = lime("chat", model, "--max-new-tokens", "6", stdin="\n".join(lines) + "\n")
    assert result.exit_code == 0
    said = result.stdout.partition("\n")[2]
    assert said.startswith(f"base> {first}\nbase> odd> * odd\nodd> {second}\nodd> base> base> {first}\n")
    assert "/what is not known" in said
    assert "no skill named 'no'" in said


def test_chat_ends_with_its_input(model: Path) -> None:
    result = lime("chat", model, "--skill", "odd", stdin="")
    assert result.exit_code == 0
    assert result.stdout.endswith("odd> \n")


def test_eval(model: Path, skill: Path) -> None:
    found = facts("eval", model, data(), "--skill", "odd", "--skill", skill, "--max-new-tokens", "8")
    base, odd, same = found["results"]
    assert (same["skill"], same["digest"], same["f1"]) == (str(skill), odd["digest"], odd["f1"])
    assert (base["skill"], odd["skill"], odd["digest"]) == (None, "odd", read_skill(skill).digest)
    runtime = Runtime.load(model)
    runtime.load_skill(skill)
    rows = read_rows(data() / "test.jsonl")
    for name, result in ((None, base), ("odd", odd)):
        answers = [_answer(runtime, row, name) for row in rows]
        expected = score(answers, [row.answer for row in rows])
        assert (result["exact match"], result["f1"]) == (round(expected.exact, 4), round(expected.f1, 4))


def _answer(runtime: Runtime, row: Row, name: str | None) -> str:
    messages = list(row.messages)
    if row.choices:
        return runtime.choose(messages, row.choices, name).label
    return runtime.generate(messages, name, max_new_tokens=8).text


def test_eval_draws_the_rows_that_learn_measures(model: Path, skill: Path) -> None:
    found = facts("eval", model, data() / "valid.jsonl", "--rows", "4", "--max-new-tokens", "8")
    assert found["dataset"] == read_skill(skill).manifest.metrics[0]["dataset"]


def test_eval_prints_a_table(model: Path, tmp_path: Path) -> None:
    rows = [{"prompt": "Is it?", "answer": "yes", "choices": ["yes", "no"]}]
    path = write_rows(tmp_path / "one.jsonl", rows)
    result = lime("eval", model, path, "--skill", "odd", "--json", tmp_path / "result.json")
    assert all(word in result.stdout for word in ("accuracy", "base", "odd", "%"))
    assert json.loads((tmp_path / "result.json").read_text("utf-8"))["rows"] == 1


def test_eval_needs_the_base_install_only(model: Path) -> None:
    blocked = "; ".join(f"sys.modules[{name!r}] = None" for name in ("torch", "transformers", "peft", "onnx"))
    code = f"import sys; {blocked}; from lime_edge.cli import main; main()"
    done = _python(code, "eval", model, data(), "--skill", "odd", "--rows", "2", "--max-new-tokens", "4")
    assert done.returncode == 0, done.stderr
    assert "2 rows" in done.stdout


def test_every_command_says_what_it_does() -> None:
    assert list(main.commands) == [*MAKING, *USING, *STORING, *TRUST, *LAST]
    assert all(command.help for command in main.commands.values())
