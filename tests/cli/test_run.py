"""`lime-edge run` and `eval`, compared with the runtime's own answers."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lime_edge import read_skill
from lime_edge.evaluation.evaluate import sample
from lime_edge.evaluation.examples import Row, read_rows
from lime_edge.evaluation.metrics import score
from lime_edge.runtime import Runtime
from lime_edge.skills.interface import Interface
from lime_edge.skills.manifest import Made
from lime_edge.skills.package import write_skill
from tests.support.cli_models import data, facts, fails, lime, python, write_rows


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
    assert "8 generated" in streamed.stderr


def test_run_takes_the_settings_of_an_answer(model: Path) -> None:
    varied = ("run", model, "Say 1", "--max-new-tokens", "8", "--temperature", "2", "--top-k", "50", "--seed")
    assert lime(*varied, "1").stdout == lime(*varied, "1").stdout != lime(*varied, "2").stdout
    stderr = fails("run", model, "Say 1", "--temperature", "99", "--top-p", "7")
    assert "temperature is 99.0" in stderr
    assert "top_p is 7.0" in stderr


def test_run_names_the_skills_there_are(model: Path, tmp_path: Path) -> None:
    assert "it holds 'odd'" in fails("run", model, "hello", "--skill", "legal")
    assert "there is no file" in fails("run", model, "hello", "--skill", tmp_path / "legal.lime")
    assert "is not a directory" in fails("run", tmp_path / "nothing", "hello")


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
    (message,) = row.messages
    prompt: str = message["content"]
    if row.choices:
        return runtime.choose(prompt, row.choices, name).label
    return runtime.generate(prompt, name, max_new_tokens=8).text


def test_eval_asks_a_skill_without_the_instruction_that_it_carries(model: Path, skill: Path, tmp_path: Path) -> None:
    odd = read_skill(skill)
    rows = [{"prompt": f"Say it.\n\nRequest: {word}\nNow:", "answer": word} for word in ("one", "two", "three")]
    path = write_rows(tmp_path / "rows.jsonl", rows)
    counts: Any = {"rows": 1, "dropped": 0, "duplicates": 0, "overlap": 0}
    runtime = Runtime.load(model)
    forms: dict[str, tuple[Any, Interface, str]] = {
        "carried": ("carried", Interface(), ""),
        "kept": ("kept", Interface(prefix="Say it.\n\n", suffix="\nNow:"), "Request: "),
        "none": ("none", Interface(), "Say it.\n\nRequest: "),
    }
    for name, (instruction, interface, left) in forms.items():
        made = Made(how="learned", instruction=instruction, data=counts)
        manifest = replace(odd.manifest, name=name, interface=interface, made=made, draft=None)
        package = write_skill(tmp_path / f"{name}.lime", manifest, odd.tensors).path
        runtime.load_skill(package)
        found = facts("eval", model, path, "--skill", package, "--max-new-tokens", "4", "--rows", "2")
        base, result = found["results"]
        assert (base["instruction_cut"], result["instruction_cut"]) == (False, instruction != "none")
        ending = "\nNow:" if name == "none" else ""
        every = read_rows(path)
        answers = [
            runtime.generate(f"{left}{row.answer}{ending}", name, max_new_tokens=4).text for row in sample(every, 2)
        ]
        expected = score(answers, [row.answer for row in sample(every, 2)])
        assert (result["exact match"], result["f1"]) == (round(expected.exact, 4), round(expected.f1, 4))


def test_run_takes_a_form_of_answers_and_raw_prompts(model: Path, skill: Path, tmp_path: Path) -> None:
    runtime = Runtime.load(model)
    runtime.load_skill(skill)
    short = ("--max-new-tokens", "8")
    raw = runtime.generate("Say 1", "odd", raw=True, max_new_tokens=8).text
    assert lime("run", model, "Say 1", "--skill", "odd", "--raw", *short).stdout == raw + "\n"
    plain = runtime.generate("Say 1", "odd", speculate=False, max_new_tokens=8)
    result = lime("run", model, "Say 1", "--skill", "odd", "--no-speculate", "--timings", *short)
    assert result.stdout == plain.text + "\n"
    assert "0 of 0 drafted tokens accepted" in result.stderr
    form = tmp_path / "answers.json"
    form.write_text('["no", "yes"]', "utf-8")
    assert lime("run", model, "Say 1", "--skill", "odd", "--answers", form, *short).stdout in ("no\n", "yes\n")
    form.write_text("[]", "utf-8")
    assert "does not say what answers look like" in fails("run", model, "Say 1", "--answers", form)


def test_eval_draws_the_rows_that_learn_measures(model: Path, skill: Path) -> None:
    found = facts("eval", model, data() / "valid.jsonl", "--rows", "4", "--max-new-tokens", "8")
    assert found["dataset"] == read_skill(skill).manifest.metrics[0]["dataset"]


def test_eval_prints_a_table(model: Path, tmp_path: Path) -> None:
    rows = [{"prompt": "Is it?", "answer": "yes", "choices": ["yes", "no"]}]
    path = write_rows(tmp_path / "one.jsonl", rows)
    result = lime("eval", model, path, "--skill", "odd", "--json", tmp_path / "result.json")
    assert all(word in result.stdout for word in ("accuracy", "base", "odd", "%"))
    assert json.loads((tmp_path / "result.json").read_text("utf-8"))["rows"] == 1


LONG = {"prompt": "x" * 250, "answer": "y"}


def test_eval_checks_every_row_before_the_first_is_answered(model: Path, tmp_path: Path) -> None:
    rows = [{"prompt": f"Say {n}", "answer": "y"} for n in range(3)]
    path = write_rows(tmp_path / "rows.jsonl", [*rows, LONG])
    path.write_text("\n" + path.read_text("utf-8"), "utf-8")
    command = ("eval", model, path, "--max-new-tokens", "4", "--json", tmp_path / "found.json")
    stderr = fails(*command)
    assert "1 of 4 rows cannot be answered" in stderr
    assert f"{path} line 5: " in stderr
    assert "--skip-long" in stderr
    assert not (tmp_path / "found.json").exists()
    assert "3 rows" in lime(*command, "--skip-long").stdout
    found = json.loads((tmp_path / "found.json").read_text("utf-8"))
    assert (found["rows"], found["left_out"], found["complete"]) == (3, 1, True)
    write_rows(path, [LONG])
    assert "1 of 1 rows cannot be answered" in fails(*command, "--skip-long")


def test_eval_keeps_what_was_measured_when_it_fails(
    model: Path, skill: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{"prompt": f"Say {n}", "answer": "y"} for n in range(40)]
    path, kept = write_rows(tmp_path / "rows.jsonl", rows), tmp_path / "kept.json"
    generate, calls = Runtime.generate, []

    def fails_later(*args: Any, **settings: Any) -> Any:
        calls.append(1)
        if len(calls) == 4:  # the second batch of the second result
            raise KeyboardInterrupt
        return generate(*args, **settings)

    monkeypatch.setattr(Runtime, "generate", fails_later)
    command = ("eval", model, path, "--skill", skill, "--max-new-tokens", "1", "--json", kept)
    assert lime(*command).exit_code == 130
    found = json.loads(kept.read_text("utf-8"))
    assert (found["complete"], found["rows"]) == (False, 40)
    assert [(one["skill"], one["rows"]) for one in found["results"]] == [(None, 40), (str(skill), 32)]


def test_eval_needs_the_base_install_only(model: Path) -> None:
    blocked = "; ".join(f"sys.modules[{name!r}] = None" for name in ("torch", "transformers", "peft", "onnx"))
    code = f"import sys; {blocked}; from lime_edge.cli import main; main()"
    done = python(code, "eval", model, data(), "--skill", "odd", "--rows", "2", "--max-new-tokens", "4")
    assert done.returncode == 0, done.stderr
    assert "2 rows" in done.stdout
