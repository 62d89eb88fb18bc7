"""The report on an evaluation: which metrics it names, for programs and for people."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lime_edge.errors import ConfigError
from lime_edge.evaluation.evaluate import Result
from lime_edge.evaluation.examples import Row, data_digest
from lime_edge.evaluation.metrics import Score
from lime_edge.reports.evaluation import Kept, summary

RUNTIME: Any = SimpleNamespace(contract=SimpleNamespace(backbone_name="tiny", precision="int4", graph_digest="a" * 64))
QUESTION = ({"role": "user", "content": "?"},)
RESULTS = [
    Result(None, None, Score(2, 0.5, 0.66666), 1.234, ["a", "b"]),
    Result("odd", "d" * 64, Score(2, 1.0, 1.0), 2.0, ["a", "c"], cut=True),
]


def test_free_answers_have_exact_match_and_f1() -> None:
    rows = [Row(QUESTION, "a"), Row(QUESTION, "c", ("b", "c"))]
    document, (table,) = summary(RUNTIME, Path("data"), rows, RESULTS)
    assert document["dataset"] == data_digest(rows)
    assert document["model"] == {"backbone": "tiny", "precision": "int4", "graph": "a" * 64}
    assert document["results"] == [
        {
            "skill": None,
            "digest": None,
            "rows": 2,
            "seconds": 1.23,
            "instruction_cut": False,
            "exact match": 0.5,
            "f1": 0.6667,
        },
        {
            "skill": "odd",
            "digest": "d" * 64,
            "rows": 2,
            "seconds": 2.0,
            "instruction_cut": True,
            "exact match": 1.0,
            "f1": 1.0,
        },
    ]
    title = f"2 rows of data ({data_digest(rows)[:12]}), int4; asked without the instruction of the rows: odd"
    assert table.title == title
    assert table.columns == ("", "exact match", "f1", "seconds")
    assert table.rows == [["base", "50.0 %", "66.7 %", "1.2"], ["odd", "100.0 %", "100.0 %", "2.0"]]


def test_choices_have_accuracy_alone() -> None:
    rows = [Row(QUESTION, "a", ("a", "b")), Row(QUESTION, "c", ("b", "c"))]
    document, (table,) = summary(RUNTIME, Path("data"), rows, RESULTS)
    assert [result["accuracy"] for result in document["results"]] == [0.5, 1.0]
    assert not {"exact match", "f1"} & document["results"][0].keys()
    assert table.columns == ("", "accuracy", "seconds")
    assert list(table.numbers) == [1, 2]


def test_rows_that_were_left_out_are_counted() -> None:
    rows = [Row(QUESTION, "a"), Row(QUESTION, "c")]
    document, (table,) = summary(RUNTIME, Path("data"), rows, RESULTS, left_out=3)
    assert document["left_out"] == 3
    assert "; 3 rows left out as too long" in table.title


def test_partial_results_are_a_whole_document(tmp_path: Path) -> None:
    rows = [Row(QUESTION, "a"), Row(QUESTION, "c")]
    path = tmp_path / "found.json"
    kept = Kept(path, RUNTIME, Path("data"), rows, 1)
    half = replace(RESULTS[0], score=Score(1, 1.0, 1.0))
    kept.partial(half)
    found = json.loads(path.read_text("utf-8"))
    assert (found["complete"], found["left_out"], [one["rows"] for one in found["results"]]) == (False, 1, [1])
    kept.complete(RESULTS[0])
    kept.partial(replace(half, skill="odd"))
    found = json.loads(path.read_text("utf-8"))
    assert [(one["skill"], one["rows"]) for one in found["results"]] == [(None, 2), ("odd", 1)]
    assert [file.name for file in tmp_path.iterdir()] == ["found.json"]
    Kept(None, RUNTIME, Path("data"), rows, 0).partial(half)  # keeps nothing
    with pytest.raises(ConfigError, match="cannot be written"):
        Kept(tmp_path / "no" / "found.json", RUNTIME, Path("data"), rows, 0).partial(half)
