"""Which rows are trained on and which are measured on, and what is said about the others."""

from __future__ import annotations

from pathlib import Path

import pytest

from lime_edge.errors import DataError
from lime_edge.evaluation.examples import Place, Row
from lime_edge.evaluation.splits import DataFacts
from lime_edge.training.dataset import Examples
from lime_edge.training.training_rows import TrainingRows, check_prompts, keep_apart, rows_of_skill
from tests.support.tiny_training import tokenizer, write_rows


def row(prompt: str, answer: str = "a", *choices: str, line: int = 1) -> Row:
    return Row(({"role": "user", "content": prompt},), answer, choices, Place(Path("rows.csv"), line))


def test_rows_with_a_prompt_to_measure_on_are_left_out_of_the_training() -> None:
    train, valid = [row("p"), row("q"), row("Q "), row("q", "b")], [row("q", "c")]
    rows = keep_apart(train, valid)
    assert (rows.train, rows.valid, rows.duplicates) == ([row("p")], valid, 1)
    assert rows.overlap == [(one, valid[0]) for one in train[1:]]
    with pytest.raises(DataError, match=r"no row is left[^$]*rows\.csv line 1 = rows\.csv line 1"):
        keep_apart(train[1:], valid)


def test_the_files_of_a_folder_may_have_any_format(tmp_path: Path) -> None:
    (tmp_path / "train.tsv").write_text("question\tanswer\np\ta\nq\tb\n", "utf-8")
    (tmp_path / "valid.csv").write_text("question,answer\nv,a\n", "utf-8")
    rows = rows_of_skill(tmp_path, None, 0)
    assert (rows.train, rows.valid) == ([row("p"), row("q", "b")], [row("v")])
    other = write_rows(tmp_path / "other.jsonl", [{"prompt": "q", "answer": "a"}])
    rows = rows_of_skill(tmp_path, other, 0)
    assert (rows.train, rows.valid) == ([row("p")], [row("q")])


def test_nothing_is_held_back_where_nothing_is_measured(tmp_path: Path) -> None:
    file = write_rows(tmp_path / "rows.jsonl", [{"prompt": "p", "answer": "a"}] * 2)
    rows = rows_of_skill(file, None, 0, measured=False)
    assert (rows.train, rows.valid, rows.duplicates) == ([row("p")] * 2, [row("p")] * 2, 1)
    with pytest.raises(DataError, match="2 rows with the same prompt"):
        rows_of_skill(file, None, 0)


@pytest.mark.parametrize(("long", "warned"), [(1, False), (2, True)])
def test_many_dropped_rows_are_a_warning(long: int, warned: bool, capsys: pytest.CaptureFixture[str]) -> None:
    rows = TrainingRows([*(row(f"p{n}") for n in range(20)), *(row("x" * 90) for _ in range(long))], [], [], 3)
    examples = Examples(tokenizer(), rows.train, 60)
    rows.report(examples)
    said = capsys.readouterr().err
    assert f"{long} of {20 + long} rows are left out: too many tokens" in said
    assert ("warning" in said) == ("--max-length" in said) == warned
    assert "3 rows repeat the prompt" in said
    assert rows.facts(examples) == DataFacts(rows=20 + long, dropped=long, duplicates=3, overlap=0)


def test_nothing_is_said_where_nothing_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    rows = TrainingRows([row("p")], [row("q")], [], 0)
    rows.report(Examples(tokenizer(), rows.train, 60))
    assert capsys.readouterr().err == ""


def test_rows_to_measure_on_have_to_fit() -> None:
    rows = [row("p", line=2), row("x" * 100, "b", "b", "c", line=3), row("x" * 60, line=4)]
    check_prompts(tokenizer(), rows, None)
    with pytest.raises(
        DataError, match=r"too long\n  - rows.csv line 4: [0-9]+ tokens and 96 for the answer"
    ) as caught:
        check_prompts(tokenizer(), rows, None, room=150)
    assert len(caught.value.faults) == 1
