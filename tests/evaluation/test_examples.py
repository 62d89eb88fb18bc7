"""JSONL files: which rows are read, which are rejected, and their digest."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lime_edge.errors import DataError
from lime_edge.evaluation.examples import Row, data_digest, find_files, read_rows
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


WRONG: list[tuple[str, str]] = [
    ("{", "line 1: "),
    ("[1]", "expected an object, found list"),
    ('{"prompt": "p"}', "'answer' must be a non-empty string, found None"),
    ('{"prompt": "", "answer": "a"}', "'prompt' must be a non-empty string, found ''"),
    ('{"prompt": 3, "answer": "a"}', "'prompt' must be a non-empty string, found 3"),
    ('{"messages": "hello"}', "messages must be a list, found str"),
    ('{"messages": []}', "must end with the assistant's answer"),
    ('{"messages": [{"role": "assistant", "content": "a"}]}', "must end with the assistant's answer"),
    ('{"messages": [{"role": "assistant", "content": "a"}, {"role": "user", "content": "u"}]}', "must end with"),
    ('{"messages": ["hello", "you"]}', "a message must be an object"),
    ('{"messages": [{"role": "user"}, {"role": "assistant", "content": "a"}]}', "'content' must be"),
    ('{"prompt": "p", "answer": "a", "choices": "ab"}', "choices must be a list, found str"),
    ('{"prompt": "p", "answer": "a", "choices": ["a", 1]}', "choices must be non-empty strings"),
    ('{"prompt": "p", "answer": "c", "choices": ["a", "b"]}', "the answer 'c' is not among the choices"),
    ("[" * 100_000, "line 1: "),
]


@pytest.mark.parametrize(("line", "message"), WRONG, ids=range(len(WRONG)))
def test_rows_that_cannot_be_used(line: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text(line + "\n", "utf-8")
    with pytest.raises(DataError) as caught:
        read_rows(file)
    assert "1 rows cannot be used" in caught.value.message
    assert message in caught.value.faults[0]


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
    assert len(caught.value.faults) == 11
    assert caught.value.faults[-1] == "and 3 more"


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_text("\n\n")
    (tmp_path / "latin.jsonl").write_bytes(b'{"prompt": "\xe9"}')
    for name, message in (("empty", "holds no rows"), ("latin", "cannot be read"), ("none", "cannot be read")):
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


def test_the_digest_is_of_content_and_order() -> None:
    other = Row(ROW.messages, "no")
    assert data_digest([ROW, other]) == data_digest([ROW, other])
    digests = {
        data_digest(rows) for rows in ([ROW], [other], [ROW, other], [other, ROW], [Row(ROW.messages, "yes", ("yes",))])
    }
    assert len(digests) == 5
