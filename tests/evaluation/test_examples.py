"""JSONL files: which rows are read, which are rejected, and their digest."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lime_edge.errors import DataError
from lime_edge.evaluation.examples import Row, data_digest, find_files, read_rows, scan, split_file
from tests.support.tiny_training import write_rows

ROW = Row(({"role": "user", "content": "is it so"},), "yes")


def test_rows_of_every_form(tmp_path: Path) -> None:
    chat = [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}, {"role": "assistant", "content": "a"}]
    file = write_rows(
        tmp_path / "rows.jsonl",
        [
            {"prompt": "p", "answer": "a"},
            {"prompt": "p", "answer": "b", "choices": ["a", "b"], "id": 7},
            {"messages": chat},
            {"prompt": "one\u2028line\u0085still", "answer": "é中😀"},
            {"prompt": "p", "answer": "a", "choices": None},
        ],
    )
    file.write_text("\n" + file.read_text("utf-8").replace("\n", "\r\n\n"), "utf-8")
    first, choice, messages, separator, none = read_rows(file)
    assert first == Row(({"role": "user", "content": "p"},), "a")
    assert choice.choices == ("a", "b")
    assert messages == Row(tuple(chat[:2]), "a")
    assert (separator.messages[0]["content"], separator.answer) == ("one\u2028line\u0085still", "é中😀")
    assert none == first


@pytest.mark.parametrize("line", ["{", "[1]", '{"prompt": "p"}', "[" * 100_000])
def test_rows_that_cannot_be_used(line: str, tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps({"prompt": "p", "answer": "a"}) + "\n" + line + "\n", "utf-8")
    with pytest.raises(DataError) as caught:
        read_rows(file)
    assert "1 of 2 rows cannot be used" in caught.value.message
    assert caught.value.faults[0].startswith("line 2: ")


def test_a_row_knows_its_place(tmp_path: Path) -> None:
    file = write_rows(tmp_path / "rows.jsonl", [{"prompt": "p", "answer": "a"}] * 2)
    first, second = read_rows(file)
    assert first == second  # the place is no part of what a row says
    assert str(second.place) == f"{file} line 2"


def test_every_bad_row_is_named_by_its_line(tmp_path: Path) -> None:
    good = json.dumps({"prompt": "p", "answer": "a"})
    file = tmp_path / "rows.jsonl"
    file.write_text("\n".join([good, "", "{", good, "3"]), "utf-8")
    with pytest.raises(DataError) as caught:
        read_rows(file)
    assert [fault.split(":")[0] for fault in caught.value.faults] == ["line 3", "line 5"]
    file.write_text("\n".join(["0"] * 13), "utf-8")
    with pytest.raises(DataError) as caught:
        read_rows(file)
    assert caught.value.faults == ("lines 1, 2, 3, 4, 5 and 8 more: expected an object, found int",)
    file.write_text("\n".join(json.dumps({"prompt": "p", "answer": n}) for n in range(13)), "utf-8")
    with pytest.raises(DataError) as caught:
        read_rows(file)
    assert len(caught.value.faults) == 11
    assert caught.value.faults[-1] == "and 3 more"


def test_a_large_value_makes_a_short_message(tmp_path: Path) -> None:
    large = "x" * 1_000_000
    rows: list[dict[str, Any]] = [
        {"prompt": "p", "answer": large, "choices": ["a", "b"]},
        {"prompt": "p", "answer": "a", "choices": [large, large, "a"]},
        {"prompt": [large], "answer": "a"},
        {large: "p"},
        {"messages": [{"role": large, "content": "c"}, {"role": "assistant", "content": "a"}]},
        {"prompt": "p", "answer": "a", "choices": large},
    ]
    with pytest.raises(DataError) as caught:
        read_rows(write_rows(tmp_path / "rows.jsonl", rows))
    assert len(caught.value.faults) == len(rows)
    assert len(str(caught.value)) < 3000


def test_a_scan_keeps_rows_and_faults(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"prompt": "p", "answer": "a", "id": 1},
        {"instruction": "i", "output": "o"},
        {"prompt": "p"},
    ]
    found = scan(write_rows(tmp_path / "rows.jsonl", rows))
    assert (len(found.rows), found.bad, len(found.faults)) == (2, 1, 1)
    assert found.forms == {"prompt and answer": 1, "Alpaca": 1}
    assert found.unread == {"id": 1}
    assert found.format == "JSONL"


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_text("\n\n")
    (tmp_path / "latin.jsonl").write_bytes(b'{"prompt": "\xe9"}')
    for name, message in (("empty", "holds no rows"), ("latin", "line 1: is not UTF-8"), ("none", "cannot be read")):
        with pytest.raises(DataError, match=message):
            read_rows(tmp_path / f"{name}.jsonl")
    with pytest.raises(DataError, match="cannot be read"):
        read_rows(tmp_path)


def test_folders_stand_for_the_files_in_them(tmp_path: Path) -> None:
    for name in ("b/train.jsonl", "a/deep/train.jsonl", "a/valid.jsonl", "other.jsonl"):
        write_rows(tmp_path / name, [])
    found = find_files([tmp_path, tmp_path / "other.jsonl"], "train")
    assert [str(path.relative_to(tmp_path)) for path in found] == ["a/deep/train.jsonl", "b/train.jsonl", "other.jsonl"]
    with pytest.raises(DataError, match=r"b: expected[^$]*nowhere: expected"):
        find_files([tmp_path / "a", tmp_path / "b", tmp_path / "nowhere"], "valid")
    assert len(find_files([tmp_path / "a", tmp_path / "b"], "valid", optional=True)) == 1


def test_a_folder_may_hold_any_format_but_one_of_each_split(tmp_path: Path) -> None:
    assert split_file(tmp_path, "train") is None
    for name in ("train.csv.gz", "train.txt", "retrain.csv", "valid.jsonl", "valid.parquet"):
        (tmp_path / name).touch()
    assert split_file(tmp_path, "train") == tmp_path / "train.csv.gz"
    assert find_files([tmp_path], "train") == [tmp_path / "train.csv.gz"]
    with pytest.raises(DataError, match="2 files named valid"):
        split_file(tmp_path, "valid")
    with pytest.raises(DataError, match="2 files named valid"):
        find_files([tmp_path], "valid")


def test_the_digest_is_of_content_and_order() -> None:
    other = Row(ROW.messages, "no")
    assert data_digest([ROW, other]) == data_digest([ROW, other])
    digests = {
        data_digest(rows) for rows in ([ROW], [other], [ROW, other], [other, ROW], [Row(ROW.messages, "yes", ("yes",))])
    }
    assert len(digests) == 5
