"""The report on data files, on ten messy files of the kinds that people have."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from lime_edge.evaluation.token_lengths import TokenCounter
from lime_edge.reports.data import describe_data
from tests.support.tiny_training import backbone_dir, write_rows


def lines(*rows: Any) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def question(number: int, answer: str = "yes", **more: Any) -> dict[str, Any]:
    return {"prompt": f"Is {number} even?\nAnswer:", "answer": answer, "choices": ["yes", "no"], **more}


def windows_export(path: Path) -> None:
    """Saved by an editor on Windows: byte-order mark, CRLF, a misspelt key, blank lines."""
    rows = [question(1), question(2), {**question(3), "choises": ["yes", "no"], "choices": None}, question(4)]
    path.write_bytes(b"\xef\xbb\xbf" + lines(*rows).replace("\n", "\r\n\r\n").encode())


def spreadsheet(path: Path) -> None:
    """Exported by a spreadsheet in a country of decimal commas, with a ragged row and an empty answer."""
    path.write_text("Question;Answer;Comment\nWho?;me;x\nWhen?;\nWhere?;;\nWhy;because;\n", "utf-8")


def broken_quotes(path: Path) -> None:
    """A table whose third row opens a quote and never closes it."""
    path.write_text('text\tlabel\nfine film\tgood\nbad film\tbad\n"my film\tgood\nits end\tbad\n', "utf-8")


def dolly(path: Path) -> None:
    """Alpaca with Dolly's names, an empty input, and an output that is a list."""
    rows: list[dict[str, Any]] = [
        {"instruction": "Name a fruit.", "input": "", "output": "lime"},
        {"instruction": "Sum up.", "context": "Limes are green.", "response": "green", "category": "summary"},
        {"instruction": "Name two.", "input": "", "output": ["lime", "fig"]},
    ]
    path.write_text(json.dumps(rows, indent=1), "utf-8")


def sharegpt(path: Path) -> None:
    """Conversations with an unknown speaker, one that ends with the human, and one of several answers."""
    human, gpt = ({"from": who, "value": who} for who in ("human", "gpt"))
    rows = [[human, gpt], [human, gpt, human, gpt], [{"from": "bard", "value": "b"}, gpt], [human, gpt, human]]
    text = lines(*({"id": str(at), "conversations": row} for at, row in enumerate(rows)))
    path.write_bytes(gzip.compress(text.encode()))


def fine_tuning(path: Path) -> None:
    """OpenAI's format, with a tool call, an answer that is not to be learned, and a role in capitals."""
    user, answer = {"role": "user", "content": "u"}, {"role": "assistant", "content": "a"}
    rows: list[list[dict[str, Any]]] = [
        [user, answer],
        [user, {"role": "assistant", "tool_calls": [{"id": "1"}]}],
        [user, {**answer, "weight": 0}],
        [{**user, "role": "User"}, answer],
    ]
    path.write_text(lines(*({"messages": row} for row in rows)), "utf-8")


def parquet(path: Path) -> None:
    """A data set of the Hub: class numbers instead of names, and a missing text."""
    rows = [{"text": "good", "label": 1, "idx": 0}, {"text": None, "label": 0, "idx": 1}]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)


def repetitive(path: Path) -> None:
    """Copied rows, prompts that differ in case, a prompt with two answers, and one label nearly always."""
    rows = [question(1)] * 17 + [question(1, prompt="IS 1 even? \nAnswer:"), question(1, "no"), question(2)]
    path.write_text(lines(*rows), "utf-8")


def choices(path: Path) -> None:
    """Choices that repeat, that miss the answer, or that are missing, and a row of two forms."""
    rows = [
        question(1),
        question(2, choices=["yes", "no", "yes"]),
        question(3, "maybe"),
        question(4, choices=None),
        question(5, messages=[]),
    ]
    path.write_text(lines(*rows), "utf-8")


def hostile(path: Path) -> None:
    """A value of a megabyte, half a character, another encoding, and a line cut off."""
    good, large = lines(question(1)).encode(), lines(question(2, "x" * 1_000_000)).encode()
    path.write_bytes(good + large + b'{"prompt": "\\ud83d", "answer": "a"}\n{"prompt": "caf\xe9"}\n{"prompt": "cu')


#: Maker -> name of the file, usable rows, other rows, and what the report says.
FILES: dict[Callable[[Path], None], tuple[str, int, int, tuple[str, ...]]] = {
    windows_export: ("w.jsonl", 3, 1, ("line 5: has the unknown key 'choises'; did you mean 'choices'?", "JSONL")),
    spreadsheet: ("s.csv", 2, 2, ("line 3: has 2 cells; expected 3", "line 4: 'answer' is missing", "comment")),
    broken_quotes: ("b.tsv", 2, 1, ("line 4: is not a row of a table", "reading stopped here (check the quotes)")),
    dolly: ("d.json", 2, 1, ("Alpaca (2)", "'output' is ['lime', 'fig']; expected text", "'category' 1")),
    sharegpt: ("g.jsonl.gz", 2, 2, ("ShareGPT", "line 3: message 1 has the from 'bard'", "1 have earlier answers")),
    fine_tuning: ("f.jsonl", 1, 3, ("line 2: message 2 calls a tool", "line 3: the last", "line 4: message 1 has the")),
    parquet: ("p.parquet", 0, 2, ("Parquet", "row 1: 'label' is 1; expected text", "row 2: 'prompt' is missing")),
    repetitive: ("r.jsonl", 20, 0, ("17 rows repeat", "1 prompts have different", "'yes' 19 (95 %), 'no' 1 (5 %)")),
    choices: ("c.jsonl", 2, 3, ("more than once", "'maybe' is not among", "different forms", "missing in 1 rows")),
    hostile: ("h.jsonl", 1, 4, ("line 3: 'prompt' holds half a", "line 4: is not UTF-8", "line 5: is not JSON")),
}


@pytest.mark.parametrize("make", FILES, ids=lambda make: make.__name__)
def test_a_messy_file_has_a_report_that_names_what_to_mend(make: Callable[[Path], None], tmp_path: Path) -> None:
    name, usable, bad, parts = FILES[make]
    make(tmp_path / name)
    document, (table,) = describe_data([tmp_path / name])
    (facts,) = document["files"]
    assert (facts["rows"], facts["bad"]) == (usable, bad)
    text = "\n".join(" ".join(row) for row in table.rows)
    assert [part for part in parts if part not in text] == []
    assert len(json.dumps(document)) < 5000
    assert len(text) < 3000


def test_what_learn_would_leave_out(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "rows.jsonl", [{"prompt": "x" * size, "answer": "a"} for size in range(1, 101)])
    _, (table,) = describe_data([path])
    assert ("left out by learn", "not known: give a model (-m) to count tokens") in table.rows
    document, (table,) = describe_data([path], TokenCounter(backbone_dir()), 60)
    (facts,) = document["files"]
    advice = f"--max-length {facts['lengths']['p95']} would keep 95 % of all"
    assert ("left out by learn", f"{facts['dropped']} rows have more than 60 tokens; {advice}") in table.rows


def test_files_that_share_prompts_are_named(tmp_path: Path) -> None:
    train = write_rows(tmp_path / "train.jsonl", [question(1), question(2)])
    valid = write_rows(tmp_path / "valid.jsonl", [question(2)])
    document, tables = describe_data([train, valid])
    assert document["overlap"][0]["rows"] == 1
    assert len(tables) == 3
    assert f"{train} line 2 = {valid} line 1" in tables[2].rows[0][1]
