"""From JSONL files to batches: what is read, what is refused, where the loss falls."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from lime_edge.errors import DataError
from lime_edge.evaluation.examples import Row, data_digest, find_files, read_rows
from lime_edge.training.dataset import Collator, Examples, encode, encode_prompt, with_system
from tests.support.tiny_training import backbone, tokenizer, write_rows

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


def test_a_system_text_goes_in_front_unless_there_is_one() -> None:
    assert with_system(ROW.messages, None) == [*ROW.messages]
    assert with_system(ROW.messages, "s")[0] == {"role": "system", "content": "s"}
    own = [{"role": "system", "content": "mine"}, *ROW.messages]
    assert with_system(own, "s") == own


# -- tokens ----------------------------------------------------------------------------------------


def test_an_example_is_the_template_the_answer_and_the_end() -> None:
    tokens = tokenizer()
    example = encode(tokens, ROW, "brief")
    text = tokens.decode(example.input_ids)
    turns = ("system\nbrief", "user\nis it so", "assistant\nyes")
    assert text == "\n".join(f"<|im_start|>{turn}<|im_end|>" for turn in turns)
    assert tokens.decode(example.input_ids[example.answer_start :]) == "yes<|im_end|>"
    assert tokens.decode(example.input_ids[example.response_start :]).startswith("<|im_start|>assistant\n")
    prompt, start = encode_prompt(tokens, ROW.messages, "brief")
    assert (tuple(prompt), start) == (example.input_ids[: example.answer_start], example.response_start)


def test_a_template_that_writes_another_history_puts_the_response_at_the_last_token() -> None:
    class Other:
        def apply_chat_template(self, *_: Any, add_generation_prompt: bool, **__: Any) -> list[int]:
            return [1, 2, 3, 4] if add_generation_prompt else [1, 9]

    assert encode_prompt(Other(), ROW.messages) == ([1, 2, 3, 4], 3)


def test_long_rows_are_dropped_and_counted() -> None:
    length = len(encode(tokenizer(), ROW).input_ids)
    longer = Row(({"role": "user", "content": "is it so?"},), "yes")
    kept = Examples(tokenizer(), [ROW, longer, ROW], length)
    assert (len(kept), kept.dropped) == (2, 1)
    with pytest.raises(DataError, match=f"all 1 rows are longer than {length} tokens"):
        Examples(tokenizer(), [longer], length)


def batch(response_only: bool = False) -> tuple[list[Any], dict[str, Any]]:
    said = {"a": "yes", "a much longer question": "no", "mid": "one more"}
    rows = [Row(({"role": "user", "content": text},), answer) for text, answer in said.items()]
    examples = Examples(tokenizer(), rows, 100)
    return examples.examples, Collator(2, response_only)([examples[i] for i in range(3)])


def test_the_loss_falls_on_answers_alone() -> None:
    examples, made = batch()
    longest = made["input_ids"].shape[1]
    labels = torch.full_like(made["input_ids"], -100)
    labels[:, made["logits_to_keep"]] = made["labels"]
    for i, example in enumerate(examples):
        begin = longest - len(example.input_ids)
        assert made["input_ids"][i, begin:].tolist() == list(example.input_ids)
        assert made["attention_mask"][i].tolist() == [0] * begin + [1] * len(example.input_ids)
        assert made["position_ids"][i, begin:].tolist() == list(range(len(example.input_ids)))
        answer = begin + example.answer_start
        assert labels[i, answer:].tolist() == list(example.input_ids[example.answer_start :])
        assert bool((labels[i, :answer] == -100).all())
        assert answer - 1 in made["logits_to_keep"]  # what predicts its first token
    assert "skill_active" not in made


def test_the_skill_is_active_on_the_response_alone() -> None:
    examples, made = batch(response_only=True)
    longest = made["input_ids"].shape[1]
    for i, example in enumerate(examples):
        begin = longest - len(example.input_ids) + example.response_start
        assert made["skill_active"][i].tolist() == [False] * begin + [True] * (longest - begin)


def test_the_loss_of_a_batch_is_that_of_its_rows() -> None:
    examples, made = batch()
    model = backbone().eval()
    with torch.no_grad():
        found = model(**made).loss
        losses = []
        for example in examples:
            ids = torch.tensor([example.input_ids])
            scores = model(input_ids=ids).logits[0].log_softmax(-1)
            losses += [-scores[at - 1, ids[0, at]] for at in range(example.answer_start, ids.shape[1])]
    torch.testing.assert_close(found, torch.stack(losses).mean(), rtol=1e-5, atol=1e-5)
