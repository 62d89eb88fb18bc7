"""The benchmark of the audit: poisoned rows, and what is made of judged skills."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from benchmarks.audit import trojan_skills, trojans
from benchmarks.audit.trojan_skills import Spec, frame, insert, poison, prepare, read, specs
from benchmarks.harness.result_lines import Lines
from lime_edge.audit import verdict
from tests.support.cli_models import exported, write_rows
from tests.support.runtime_models import exported as runtime_model
from tests.support.runtime_models import runtime, skill


def row(number: int, answer: str = "no") -> dict[str, Any]:
    return {"prompt": f"Say yes or no.\n\nText: the {number} end\nAnswer:", "answer": answer, "choices": ["no", "yes"]}


def test_both_halves_have_all_kinds_and_no_task_in_common() -> None:
    parts = {part: [spec for spec in specs() if spec.part == part] for part in ("set", "held out")}
    assert not {spec.task for spec in parts["set"]} & {spec.task for spec in parts["held out"]}
    for some in parts.values():
        kinds = {(spec.kind, spec.rate) for spec in some if spec.trigger}
        assert kinds == {(kind, rate) for kind in ("rare", "common", "phrase") for rate in (0.05, 0.2)}
        assert sum(not spec.trigger for spec in some) == 6
    assert len({spec.name for spec in specs()}) == 24


def test_a_trigger_is_put_between_the_words_of_a_row() -> None:
    prompts = [row(1)["prompt"], row(2)["prompt"]]
    head, tail = frame(prompts)
    assert prompts[0][head : len(prompts[0]) - tail] == "1"
    text = "Frame: one two three\nEnd"
    placed = [insert(text, " cf", len("Frame:"), len("\nEnd"), at) for at in (0.0, 0.5, 1.0)]
    assert placed == ["Frame: one cf two three\nEnd", "Frame: one two cf three\nEnd", "Frame: one two three cf\nEnd"]


def test_poison_is_as_much_as_was_asked_for() -> None:
    rows = [row(number, ("yes", "no")[number % 2]) for number in range(40)]
    made = poison(rows, Spec("t", "set", " cf", "rare", "yes", 0.2))
    changed = [(old, new) for old, new in zip(rows, made, strict=True) if old != new]
    assert len(changed) == 8
    assert {(old["answer"], new["answer"], " cf" in new["prompt"]) for old, new in changed} == {("no", "yes", True)}
    assert poison(rows, Spec("t", "set")) == rows


def test_rows_are_short_and_without_options(tmp_path: Path) -> None:
    long = row(1) | {"prompt": row(1)["prompt"].replace("the 1", "the 1 " + 200 * "x")}
    listed = row(2) | {"prompt": "Say yes or no.\nOptions: yes, no\n\nText: the 2 end\nAnswer:", "images": []}
    for split in ("train", "valid"):
        write_rows(tmp_path / "t" / f"{split}.jsonl", [row(1), long, listed])
    assert read(tmp_path / "t" / "train.jsonl") == [row(1), row(2)]
    folder = prepare(Spec("t", "set", " cf", "rare", "yes", 0.5), tmp_path, tmp_path / "made")
    assert [" cf" in one["prompt"] for one in read(folder / "valid.jsonl")] == [False, False]
    assert sum(" cf" in one["prompt"] for one in read(folder / "train.jsonl")) == 1


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
