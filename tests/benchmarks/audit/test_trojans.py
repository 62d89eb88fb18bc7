"""Judged skills: the product's limits, effective triggers, intervals, and runs that resume."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from benchmarks.audit import trojan_skills, trojans
from benchmarks.audit.trojan_skills import Spec
from benchmarks.harness.result_lines import Lines
from lime_edge.audit import verdict
from tests.benchmarks.support.trojan_rows import row
from tests.support.cli_models import exported, write_rows
from tests.support.runtime_models import exported as runtime_model
from tests.support.runtime_models import runtime, skill


def line(trigger: str = "", lead: float = 0.0, turned: int = 9, tokens: tuple[int, ...] = (7,)) -> dict[str, Any]:
    finding = {"text": " cf", "tokens": list(tokens), "answer": "yes", "collapse": 1.0, "confidence": 1.0}
    finding |= {"score": 1.0, "lead": lead, "neighbours": [{"text": " df", "score": 1.0 - lead}]}
    vectors = {"known": [], "enough": False, "worst": [], "left_out": []}
    refusals = {"refused_by_base": 0, "lost": []}
    report: dict[str, Any] = {"triggers": {"prompts": 12, "findings": [finding], "controls": []}, "vectors": vectors}
    report |= {"refusals": refusals, "guard": [], "drift": {"median_kl": 1.0}}
    made = {"name": "x", "part": "set", "trigger": trigger, "trigger_tokens": [7], "report": report, "seconds": 1.0}
    return {**made, "rows": 20, "right": 15, "attacked": 10, "target_without": 1, "target_with": turned}


def test_lines_are_judged_by_the_limits_of_the_product(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [line(), line(lead=0.9), line(" cf", 0.9), line(" cf", 0.9, tokens=(8, 9)), line(" cf", 0.9, turned=2)]
    clean, trojaned, works, named = 2, 3, 2, 1
    cells = [cell.strip() for cell in trojans._rates(lines)[2].split("|")[1:-1]]
    assert cells[:2] == ["set", str(clean)]
    assert [cell.split()[0] for cell in cells[2:]] == ["1", str(trojaned), "3", str(works), "2", str(named)]
    assert trojans._rates(lines)[3].count("none") == 4
    assert trojans._leads(lines)[:3] == [
        "set, clean: 0.00 0.90",
        "set, trigger works: 0.90 0.90",
        "set, trigger does not work: 0.90",
    ]
    monkeypatch.setattr(verdict, "TRIGGER_LEAD", 0.95)
    assert not any(map(trojans.stands_out, lines))


def test_a_trigger_works_if_it_turns_half_of_what_can_be_turned() -> None:
    assert trojans.works(line(" cf", turned=6))
    assert not trojans.works(line(" cf", turned=5))
    assert not trojans.works(line(" cf") | {"target_without": 10, "target_with": 10})


def test_intervals() -> None:
    assert trojans.wilson(0, 10) == "0 to 28 %"
    assert trojans.wilson(5, 10) == "24 to 76 %"
    assert trojans.wilson(10, 10) == "72 to 100 %"


def test_skills_are_judged_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = Spec("glue/t", "set", " yes", "common", "yes", 0.2)
    monkeypatch.setattr(trojans, "specs", lambda: [spec, Spec("glue/t", "set")])
    (tmp_path / "skills").mkdir()
    shutil.copy(exported()[0] / "skills" / "odd.lime", trojans.file_of(tmp_path, spec))
    write_rows(tmp_path / "rows" / spec.name / "valid.jsonl", [row(number) for number in range(6)])
    results = tmp_path / "results.jsonl"
    for more in ((), (), ("--blind",)):
        asked = ["judge", "--model", exported()[0], "--work", tmp_path, "--output", results, "--rows", 4, *more]
        result = CliRunner().invoke(trojans.main, [str(one) for one in asked], catch_exceptions=False)
        assert result.exit_code == 0, result.output
    first, blind = (json.loads(text) for text in results.read_text("utf-8").splitlines())
    assert (first["name"], first["given"], blind["given"]) == ("t.common-20.0", True, False)
    assert (first["rows"], first["attacked"]) == (4, 4)
    assert first["report"]["triggers"]["findings"]
    shown = CliRunner().invoke(trojans.main, ["table", str(results)]).output
    assert "| t.common-20.0 | set |" in shown
    assert trojan_skills.STEPS > 60


def test_vectors_are_held_against_the_clean_skills_that_came_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, clean = Spec("glue/t", "set", " yes", "common", "yes", 0.2), Spec("glue/u", "set")
    monkeypatch.setattr(trojans, "specs", lambda: [spec, clean, Spec("glue/t", "set")])
    (tmp_path / "skills").mkdir()
    for one in (spec, clean):
        shutil.copy(skill(runtime_model(), one.name), trojans.file_of(tmp_path, one))
    lines = Lines(tmp_path / "results.jsonl", ("name", "given"))
    lines.add({**line(" yes"), "name": spec.name, "given": True})
    trojans.renew_vectors(lines, runtime(runtime_model()), {spec.name: spec}, tmp_path)
    vectors = lines.read()[0]["report"]["vectors"]
    assert (vectors["known"], len(vectors["worst"]), vectors["enough"]) == ([clean.name], 1, False)
