"""Data files of every format: what is read, the line where it stands, and what is refused."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from lime_edge.errors import DataError, MissingExtraError
from lime_edge.evaluation.file_formats import Record, open_records

ROWS = [{"prompt": "a, b", "answer": "é"}, {"prompt": 'say "hi"\nnow', "answer": "中😀"}]
CSV = 'prompt,answer\n"a, b",é\n"say ""hi""\nnow",中😀\n'


def records(path: Path, content: str | bytes) -> list[Record]:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return list(open_records(path).records)


def values(path: Path, content: str | bytes) -> list[Any]:
    found = records(path, content)
    assert not [record.fault for record in found if record.fault]
    return [record.value for record in found]


def parquet(path: Path, rows: list[dict[str, Any]]) -> bytes:
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return path.read_bytes()


TEXTS = {
    "rows.jsonl": "\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS),
    "rows.json": json.dumps(ROWS, indent=2),
    "lines.json": "\n".join(map(json.dumps, ROWS)),
    "rows.csv": CSV,
    "semicolon.csv": CSV.replace(",", ";").replace("a;", "a,"),
    "rows.tsv": CSV.replace(",", "\t").replace("a\t", "a,"),
}


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("mark", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("packed", [False, True])
def test_every_format_gives_the_same_values(name: str, mark: str, packed: bool, tmp_path: Path) -> None:
    content = TEXTS[name].encode(mark)
    path = tmp_path / (f"{name}.gz" if packed else name)
    assert values(path, gzip.compress(content) if packed else content) == ROWS


@pytest.mark.parametrize("packed", [False, True])
def test_parquet(packed: bool, tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{**ROWS[0], "choices": ["é", "e"]}, {**ROWS[1], "choices": None}]
    content = parquet(tmp_path / "plain.parquet", rows)
    path = tmp_path / ("rows.parquet.gz" if packed else "rows.parquet")
    path.write_bytes(gzip.compress(content) if packed else content)
    file = open_records(path)
    assert (file.format, file.unit, list(file.records)) == ("Parquet", "row", [Record(1, rows[0]), Record(2, rows[1])])
    with pytest.raises(DataError, match="not Parquet, or damaged"):
        records(tmp_path / "cut.parquet", content[:-9])


def test_parquet_without_pyarrow_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = parquet(tmp_path / "rows.parquet", ROWS)
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'lime-edge\[data\]'"):
        records(tmp_path / "rows.parquet", content)


def test_unknown_extensions_are_read_as_json_if_they_look_like_it(tmp_path: Path) -> None:
    assert values(tmp_path / "rows.data", TEXTS["rows.jsonl"]) == ROWS
    assert values(tmp_path / "rows", TEXTS["rows.json"]) == ROWS
    with pytest.raises(DataError, match=r"unknown format; expected \.jsonl"):
        records(tmp_path / "rows.txt", "prompt: hello")


def test_records_are_numbered_by_the_line_where_they_begin(tmp_path: Path) -> None:
    array = '[\n {"prompt": "a"},\n\n {"prompt":\n "b"}, {"prompt": "c"}\n]'
    assert [record.number for record in records(tmp_path / "a.json", array)] == [2, 4, 5]
    assert [record.number for record in records(tmp_path / "a.csv", CSV + "\nlast,row\n")] == [2, 3, 6]
    assert [record.number for record in records(tmp_path / "a.jsonl", "\n{}\r\n\n{}")] == [2, 4]


def test_empty_cells_are_missing_and_choices_are_lists(tmp_path: Path) -> None:
    table = 'Prompt ,answer,choices,note\np,a,a | b,\np,a,"[""a"", ""b|c""]",x\n'
    wanted = [
        {"prompt": "p", "answer": "a", "choices": ["a", "b"]},
        {"prompt": "p", "answer": "a", "choices": ["a", "b|c"], "note": "x"},
    ]
    assert values(tmp_path / "a.csv", table) == wanted
    chat = 'messages\n"[{""role"": ""user"", ""content"": ""u""}]"\n'
    assert values(tmp_path / "b.csv", chat) == [{"messages": [{"role": "user", "content": "u"}]}]


FAULTS: dict[str, tuple[str, int, str]] = {
    "ragged.csv": ("prompt,answer\na,b\nc\n", 3, "has 1 cells; expected 2"),
    "twice.csv": ("answer,Answer\na,b\n", 1, "expected a different name for each column"),
    "open.csv": ('prompt,answer\n"a,b\nc,d\n', 2, "reading stopped here (check the quotes)"),
    "cell.csv": ("prompt,answer,choices\np,a,[a\n", 2, "JSON in the column 'choices' that is not JSON"),
    "latin.jsonl": ('{"prompt": "a"}\n{"prompt": "\xe9"}'.encode("latin-1"), 2, "is not UTF-8 at byte 13"),  # type: ignore[dict-item]
    "nan.jsonl": ('{"prompt": NaN}', 1, "NaN"),
    "twice.jsonl": ('{"prompt": "a", "prompt": "b"}', 1, "appears twice"),
    "deep.jsonl": ("[" * 60_000, 1, "nested too deeply"),
    "deep.json": ("[" * 60_000, 1, "nested too deeply"),
    "cut.json": ('[{"prompt": "a"},\n{"pro', 2, "reading stopped here"),
    "comma.json": ('[{"prompt": "a"}\n{"prompt": "b"}]', 1, "neither a comma nor"),
    "object.json": ('{"version": 1,\n"data": [{"prompt": "a"}]}', 1, "its key 'data' holds a list"),
    "text.json": ("hello", 1, "expected an array of objects"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_records_that_cannot_be_read(name: str, tmp_path: Path) -> None:
    content, number, message = FAULTS[name]
    faulty = [record for record in records(tmp_path / name, content) if record.fault]
    assert [record.number for record in faulty] == [number]
    assert message in faulty[0].fault
    assert len(faulty[0].fault) < 300


def test_a_large_cell_is_a_short_fault(tmp_path: Path) -> None:
    (fault,) = [record for record in records(tmp_path / "a.csv", f"prompt\n{'x' * 1_000_000}\n") if record.fault]
    assert len(fault.fault) < 200


def test_files_that_cannot_be_read_to_the_end(tmp_path: Path) -> None:
    packed = gzip.compress(TEXTS["rows.jsonl"].encode() * 1000)
    for name, content in {"cut": packed[:-20], "none": b"plain text"}.items():
        with pytest.raises(DataError, match="cannot be read"):
            records(tmp_path / f"{name}.jsonl.gz", content)
    with pytest.raises(DataError, match="it is not UTF-8"):
        records(tmp_path / "latin.csv", b"prompt,answer\ncaf\xe9,a\n")
    for path in (tmp_path, tmp_path / "nowhere.csv"):
        with pytest.raises(DataError, match="cannot be read"):
            open_records(path)
