"""Training data of trojaned skills: tasks, triggers and poisoned rows."""

from __future__ import annotations

from pathlib import Path

from benchmarks.audit.trojan_skills import Spec, frame, insert, poison, prepare, read, specs
from tests.benchmarks.support.trojan_rows import row
from tests.support.cli_models import write_rows


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
