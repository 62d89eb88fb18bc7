"""`lime-edge audit`: its figures by hand, verdict, page and command. Its search: test_audit_search.py."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lime_edge.audit import drift, report, vector_outliers, verdict
from lime_edge.audit.audit import packages
from lime_edge.errors import DataError
from lime_edge.runtime.probe import probing
from lime_edge.skills.package import Skill, read_skill
from tests.support.cli_models import exported as cli_model
from tests.support.cli_models import facts, lime, write_rows
from tests.support.runtime_models import PROMPTS, Plain, exported, runtime, skill

# -- vectors ---------------------------------------------------------------------------------------


def test_robust_deviations() -> None:
    known = [0.8, 0.9, 1.0, 1.1, 1.2]  # median 1, median deviation 0.1
    assert vector_outliers.robust_z(2.0, known) == pytest.approx(1 / 0.14826)
    assert vector_outliers.robust_z(0.0, known) == pytest.approx(-1 / 0.14826)
    assert vector_outliers.robust_z(1.5, [1.0, 1.0, 1.0]) == pytest.approx(5)  # a tenth of the median at least
    assert vector_outliers.robust_z(1.0, []) is None


@pytest.fixture(scope="module")
def known() -> list[Skill]:
    return [read_skill(skill(exported(), f"known-{i}")) for i in range(10)]


def changed(one: Skill, name: str, by: Any) -> Skill:
    return dataclasses.replace(one, tensors={**one.tensors, name: by(one.tensors[name].copy())})


def test_vectors_out_of_line_are_named(known: list[Skill]) -> None:
    sound = read_skill(skill(exported(), "new"))
    assert max(cell.worst for cell in vector_outliers.cells(sound, known)) < verdict.VECTOR_Z
    name = sorted(sound.tensors)[3]
    kind, _, module = name.partition(".")

    def peaked(array: Any) -> Any:
        array[..., 0] = 40
        return array

    for by, figure in ((lambda array: 5 * array, "rms_z"), (peaked, "peak_z")):
        worst = vector_outliers.summary(changed(sound, name, by), known)["worst"][0]
        assert (worst["kind"], worst["module"]) == (kind, module)
        assert worst[figure] > verdict.VECTOR_Z
    assert worst["layer"] == int(module.split(".")[2])


def test_what_there_is_to_compare_with(known: list[Skill]) -> None:
    one = known[0]
    few = vector_outliers.summary(one, known[1:3])
    assert (few["enough"], len(few["known"])) == (False, 2)
    assert vector_outliers.summary(one, known)["enough"]
    alone = vector_outliers.summary(one, [])
    assert alone["worst"] == []
    assert {cell["rms_z"] for cell in alone["cells"]} == {None}
    flipped = dataclasses.replace(one, tensors={name: -value for name, value in one.tensors.items()})
    assert vector_outliers.likeness(one, [flipped]) == {one.name: pytest.approx(-1, abs=1e-5)}


# -- drift and guard tasks -------------------------------------------------------------------------


def test_divergence() -> None:
    base, other = np.log([[0.5, 0.5], [0.5, 0.5]]), np.log([[0.25, 0.75], [0.5, 0.5]])
    assert drift.divergence(base, other) == pytest.approx((0.5 * math.log(2) + 0.5 * math.log(2 / 3)) / 2)
    assert drift.divergence(base, base) == 0


def test_sign_test() -> None:
    assert drift.sign_test(3, 0) == 1 / 8
    assert drift.sign_test(1, 1) == 3 / 4
    assert drift.sign_test(0, 3) == 1
    assert drift.sign_test(0, 0) == 1


def test_refusals_are_known_by_words() -> None:
    assert drift.refuses("I\u2019m SORRY, but no.")
    assert drift.refuses("I can\u2019t do that")
    assert not drift.refuses("First, take a hammer.")


def test_guard_tasks(tmp_path: Path) -> None:
    assert len(drift.guard_tasks(None, 40)["built-in"]) == 20
    write_rows(tmp_path / "deep" / "a.jsonl", [{"prompt": f"{i}", "answer": "x"} for i in range(9)])
    tasks = drift.guard_tasks(tmp_path, 4)
    assert [row.messages[0]["content"] for row in tasks["deep/a.jsonl"]] == ["0", "3", "6"]
    with pytest.raises(DataError, match="holds no guard tasks"):
        drift.guard_tasks(tmp_path / "none", 4)


def test_drift_of_a_skill_and_of_none() -> None:
    model = runtime(exported(), "one")
    with probing(model, "one", 200) as one, probing(model, None, 200) as base:
        far = drift.drift(one, base, PROMPTS)
        near = drift.drift(base, base, PROMPTS)
    assert near["median_kl"] == near["max_kl"] == 0
    assert near["same_first_token"] == len(PROMPTS)
    assert far["median_kl"] > 0.01


# -- probes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("activation", ["always", "response"])
def test_a_probe_sees_what_the_model_says(activation: str) -> None:
    file = skill(exported(), "one", activation=activation)
    model = runtime(exported())
    model.load_skill(file)
    plain = Plain(exported(), file, activation)
    with probing(model, "one", 200) as probe:
        for prompt in PROMPTS:  # one after another on one row: what they begin with is taken over
            ids = probe.tokens(prompt)
            boundary = probe.text.known(ids).boundary
            answer, _ = probe.greedy(ids, 3)
            assert list(answer) == plain.answer(ids, boundary, 3)[: len(answer)]
            first, second = probe.after(ids, answer[:1])
            logits = plain([*ids, answer[0]], boundary)[-2:].astype(np.float64)
            expected = logits - np.log(np.exp(logits).sum(1, keepdims=True))
            np.testing.assert_allclose([first, second], expected, atol=1e-3)
            np.testing.assert_allclose(probe.along(ids, answer)[: len(answer)][:2], expected[: len(answer)], atol=1e-3)


# -- verdict and page ------------------------------------------------------------------------------


STRANGE = "<script>alert(1)</script>"


def finding(score: float, near: float = 0.0) -> dict[str, Any]:
    made = {"text": STRANGE, "tokens": [7], "answer": "yes", "collapse": 1.0, "confidence": score, "score": score}
    return {**made, "lead": score - near, "neighbours": [{"text": STRANGE, "score": near}] * 2}


def document(score: float = 0.0, near: float = 0.0, z: float = 0.0, **changes: Any) -> dict[str, Any]:
    cell = {"kind": "gain", "module": "layers.1.q_proj", "layer": 1, "projection": "q_proj", "rms": 1.0, "peak": 2.0}
    cell |= {"rms_z": z, "peak_z": None}
    made: dict[str, Any] = {
        "skill": {"file": "x.lime", "name": "x", "version": "1.0.0", "digest": "d"},
        "model": {"backbone": "tiny", "precision": "fp32"},
        "vectors": {"known": [{}] * 12, "enough": True, "cells": [cell], "worst": [cell], "left_out": []},
        "drift": {"prompts": [{}], "median_kl": 0.1, "max_kl": 0.2, "same_first_token": 1},
        "refusals": {"prompts": 8, "refused_by_base": 2, "lost": []},
        "guard": [{"task": "t", "rows": 9, "base": 6, "skill": 6, "lost": 0, "gained": 0, "p": 1.0}],
        "triggers": {
            "prompts": 12,
            "searched": 5,
            "vocabulary": 9,
            "surprises": [0.1, 0.4],
            "findings": [finding(score, near)],
            "controls": [finding(0.1)],
        },
    }
    made |= changes
    return {**made, "verdict": verdict.verdict(made)}


def test_what_makes_a_skill_stand_out() -> None:
    limit, lead, far = verdict.TRIGGER_SCORE, verdict.TRIGGER_LEAD, verdict.VECTOR_Z
    assert not document()["verdict"]["stands_out"]
    assert "of 12 prompts" in document(limit)["verdict"]["raised"][0]
    assert not document(limit - 0.01)["verdict"]["stands_out"]
    assert document(1.0, near=1 - lead)["verdict"]["stands_out"]
    assert not document(1.0, near=1.01 - lead)["verdict"]["stands_out"]  # words of like meaning do it too
    weak = document()["triggers"] | {"findings": [finding(0.7), finding(0.9, near=0.3)]}
    assert "score 0.90" in document(triggers=weak)["verdict"]["raised"][0]  # the first leads more, and takes over less
    assert "gain.layers.1.q_proj" in document(z=-far)["verdict"]["notes"][0]  # said, and no alarm: tasks differ as much
    assert not document(z=-far)["verdict"]["stands_out"]
    assert not document(z=far - 0.1)["verdict"]["notes"]
    few = document(z=far)["vectors"] | {"enough": False, "left_out": ["y.lime: made for another model"]}
    notes = document(vectors=few)["verdict"]["notes"]
    assert len(notes) == 2
    assert not document(vectors=few)["verdict"]["stands_out"]


def test_what_is_only_said() -> None:
    guard = [{"task": "t", "rows": 9, "base": 8, "skill": 1, "lost": 7, "gained": 0, "p": 0.0078}]
    lost = {"prompts": 8, "refused_by_base": 2, "lost": [{}]}
    judged = document(guard=guard, refusals=lost, triggers=None)["verdict"]
    assert not judged["stands_out"]
    assert [note.split()[0] for note in judged["notes"]] == ["no", "1", "guard"]


def test_the_page_holds_no_code_of_a_stranger() -> None:
    for made in (document(0.9), document(triggers=None)):
        text = report.page(made)
        assert "<script" not in text
        assert "default-src &#39;none&#39;" in text or "default-src 'none'" in text
    assert "&lt;script&gt;" in report.page(document(0.9))


# -- the command -----------------------------------------------------------------------------------


def test_the_command(tmp_path: Path) -> None:
    model, _ = cli_model()
    write_rows(tmp_path / "guard.jsonl", [{"prompt": "Is it?", "answer": "yes", "choices": ["yes", "no"]}])
    files = tmp_path / "a.json", tmp_path / "a.html"
    asked = ("--model", model, "--data", tmp_path, "--tokens", "0", "--threads", "1")
    result = lime("audit", "odd", *asked, "--html", files[1], "--json", files[0])
    assert result.exit_code == 0, result.output
    found = json.loads(files[0].read_text("utf-8"))
    assert (found["what"], found["format"], found["skill"]["name"]) == ("audit", 1, "odd")
    assert [one["task"] for one in found["guard"]] == ["built-in", "guard.jsonl"]
    assert found["triggers"]["searched"] == found["triggers"]["vocabulary"] > 0
    assert found["vectors"]["known"] == []  # the skill is no witness of itself
    assert found["verdict"]["stands_out"] == bool(found["verdict"]["raised"])
    assert "odd" in files[1].read_text("utf-8")
    assert "Outside its task" in result.stdout
    assert facts("audit", model / "skills" / "odd.lime", *asked)["skill"] == found["skill"]


def test_packages_without_golden_prompts_and_of_other_models(tmp_path: Path) -> None:
    found = facts(
        "audit", skill(exported(), "bare"), "--model", exported(), "--against", skill(exported(), "other"),
        "--against", cli_model()[0] / "skills",
    )  # fmt: skip
    assert found["triggers"] is None
    assert [one["name"] for one in found["vectors"]["known"]] == ["other"]
    assert len(found["vectors"]["left_out"]) == 1


def test_what_is_refused(tmp_path: Path) -> None:
    model, _ = cli_model()
    broken = tmp_path / "broken.lime"
    broken.write_bytes((model / "skills" / "odd.lime").read_bytes()[:-9])
    (tmp_path / "guard.jsonl").write_text('{"prompt": 1}\n', "utf-8")
    for args, message in (
        ((broken,), "cut short"),
        ((skill(exported(), "one"),), "made for"),
        (("nobody",), "no skill named 'nobody'"),
        (("odd", "--data", tmp_path), "1 rows cannot be used"),
        (("odd", "--data", tmp_path / "none"), "holds no guard tasks"),
        (("odd", "--against", tmp_path / "none", "--against", tmp_path / "nor"), "nor: expected a .lime file"),
    ):
        result = lime("audit", *args, "--model", model)
        assert (result.exit_code, message in result.stderr) == (1, True), (message, result.output)
    for place in (tmp_path, tmp_path / "none" / "page.html"):  # before the model is opened
        result = lime("audit", "odd", "--model", tmp_path / "none", "--html", place)
        assert (result.exit_code, "cannot be written" in result.stderr) == (2, True), result.output
    assert packages([tmp_path, broken]) == [broken, broken]
