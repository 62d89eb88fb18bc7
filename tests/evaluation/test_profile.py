"""What is said about a data file before anything is trained on it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lime_edge.evaluation.examples import scan
from lime_edge.evaluation.profile import overlaps, profile
from lime_edge.evaluation.token_lengths import TokenCounter
from tests.support.tiny_training import backbone_dir, write_rows


def described(path: Path, rows: list[dict[str, Any]], counter: TokenCounter | None = None, **settings: Any) -> Any:
    return profile(scan(write_rows(path / "rows.jsonl", rows)), counter, **settings)


def pair(prompt: str, answer: str = "a", **more: Any) -> dict[str, Any]:
    return {"prompt": prompt, "answer": answer, **more}


def test_lengths_in_characters_and_in_tokens(tmp_path: Path) -> None:
    rows = [pair("x" * size) for size in range(1, 101)]
    plain = described(tmp_path, rows)
    assert plain["lengths"] == {"unit": "characters", "shortest": 2, "median": 51, "p95": 96, "longest": 101}
    assert "dropped" not in plain
    counter = TokenCounter(backbone_dir())
    assert described(tmp_path, rows, counter, max_length=10_000)["dropped"] == 0
    tokens = described(tmp_path, rows, counter, max_length=100)["lengths"]
    limit = tokens["p95"]
    assert tokens["unit"] == "tokens"
    assert described(tmp_path, rows, counter, max_length=limit)["dropped"] == 5


def test_repetition(tmp_path: Path) -> None:
    rows = [pair("p"), pair("P"), pair("q"), pair("q", "b"), pair("r", "c")]
    facts = described(tmp_path, rows)
    assert (facts["rows"], facts["prompts"], facts["duplicates"], facts["conflicts"]) == (5, 3, 1, 1)
    assert facts["conflict_examples"] == ["line 3, line 4"]


def test_labels(tmp_path: Path) -> None:
    free = [pair(f"p{number}", f"a{number}") for number in range(10)]
    assert described(tmp_path, free)["labels"] == {}
    few = [pair(f"p{number}", "ab"[number % 3 == 0]) for number in range(9)]
    assert described(tmp_path, few)["labels"] == {"a": 6, "b": 3}
    letters = "abcdefghijklmnopqrstuvwxyz"
    many = [pair(f"p{letter}", letter, choices=list(letters + "!")) for letter in letters]
    assert described(tmp_path, many)["labels"] == {**dict.fromkeys(letters, 1), "!": 0}


def test_wording_and_conversations(tmp_path: Path) -> None:
    turns = [{"role": role, "content": text} for role, text in (("user", "Do 1 now"), ("assistant", "a"))]
    rows: list[dict[str, Any]] = [pair("Do 2 now", system="s"), {"messages": [*turns, *turns]}]
    facts = described(tmp_path, rows)
    assert (facts["beginning"], facts["ending"]) == ("Do ", " now")
    assert (facts["systems"], facts["several_answers"]) == (1, 1)


def test_rows_that_the_template_rejects_cannot_be_used(tmp_path: Path) -> None:
    directory = tmp_path / "strict"
    directory.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (directory / name).write_bytes((backbone_dir() / name).read_bytes())
    no_system = "{{ raise_exception('no system here') if messages[0].role == 'system' else messages[0].content }}"
    (directory / "chat_template.jinja").write_text(no_system, "utf-8")
    facts = described(tmp_path, [pair("p"), pair("p", system="s")], TokenCounter(directory))
    assert (facts["rows"], facts["bad"]) == (1, 1)
    assert "line 2: " in facts["faults"][0]
    assert "system" in facts["faults"][0]
    assert "\n" not in facts["faults"][0]


def test_a_file_without_usable_rows_has_no_more_facts(tmp_path: Path) -> None:
    facts = described(tmp_path, [{"prompt": "p"}])
    assert (facts["rows"], facts["bad"], "lengths" in facts) == (0, 1, False)


def test_prompts_in_two_files(tmp_path: Path) -> None:
    rows = {"train": [pair("a"), pair("b"), pair("b")], "valid": [pair("c"), pair("B")], "test": [pair("d")]}
    files = [scan(write_rows(tmp_path / f"{name}.jsonl", some)) for name, some in rows.items()]
    (found,) = overlaps(files)
    assert found["files"] == [str(tmp_path / "train.jsonl"), str(tmp_path / "valid.jsonl")]
    assert found["rows"] == 2
    assert found["examples"][0] == f"{tmp_path / 'train.jsonl'} line 2 = {tmp_path / 'valid.jsonl'} line 2"
